"""Bad input on the command line: one clear sentence, the right exit code, and nothing half-written."""

from __future__ import annotations

import json
import os
import resource
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_process import run, start
from PIL import Image
from tiny_bundle import images, mask_model, rehash

Damage = Callable[[Path], None]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """One good image."""
    path = tmp_path / "photo.png"
    Image.new("L", (16, 16), 90).save(path)
    return path


# ---- bundles ---------------------------------------------------------------------------------------------------------


def edit(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest as text, past all checks."""
    path = bundle / "bundle.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def flip_a_byte(bundle: Path) -> None:
    data = bytearray((bundle / "weights.bin").read_bytes())
    data[100] ^= 1
    (bundle / "weights.bin").write_bytes(data)


def escape_by_symlink(bundle: Path) -> None:
    outside = bundle.parent / "outside.bin"
    (bundle / "weights.bin").rename(outside)
    (bundle / "weights.bin").symlink_to(outside)


def escape_by_external_data(bundle: Path) -> None:
    data = (bundle / "step.onnx").read_bytes()
    assert data.count(b"weights.bin") == 1
    (bundle / "step.onnx").write_bytes(data.replace(b"weights.bin", b"../w/ts.bin"))
    rehash(bundle)


def rename_key(data: dict[str, Any], old: str, new: str) -> None:
    data[new] = data.pop(old)


DAMAGES: dict[str, tuple[Damage, tuple[str, ...]]] = {
    "missing folder": (lambda b: b.rename(b.parent / "moved"), ("there is no bundle", "check the path")),
    "missing manifest": (lambda b: (b / "bundle.json").unlink(), ("is not a bundle", "bundle.json")),
    "missing file": (lambda b: (b / "weights.bin").unlink(), ("weights.bin", "is missing")),
    "renamed file": (lambda b: (b / "step.onnx").rename(b / "stepp.onnx"), ("was renamed to stepp.onnx",)),
    "truncated file": (lambda b: os.truncate(b / "weights.bin", 1000), ("weights.bin", "cut off", "1000 of 1024")),
    "changed file": (flip_a_byte, ("weights.bin", "SHA-256")),
    "wrong hash": (
        lambda b: edit(b, lambda d: d["files"]["unet.onnx"].update(sha256="0" * 64)), ("unet.onnx", "SHA-256")
    ),
    "damaged manifest": (lambda b: os.truncate(b / "bundle.json", 500), ("not valid JSON",)),
    "newer schema": (lambda b: edit(b, lambda d: d.update(schema_version=2)), ("newer edgepure", "upgrade")),
    "unknown key": (
        lambda b: edit(b, lambda d: rename_key(d, "default_preset", "default_presett")),
        ("unknown key default_presett", "did you mean default_preset?"),
    ),
    "unknown parameter": (
        lambda b: edit(b, lambda d: d["presets"]["uniform"]["method"].update(tstar=5)), ("tstar", "t_star")
    ),
    "path that escapes": (
        lambda b: edit(b, lambda d: rename_key(d["files"], "weights.bin", "../weights.bin")), ("../weights.bin", "'..'")
    ),
    "absolute path": (lambda b: edit(b, lambda d: d["graphs"]["unet"].update(file="/etc/passwd")), ("absolute",)),
    "symlink out": (escape_by_symlink, ("weights.bin", "symlink", "leaves the bundle")),
    "external data out": (escape_by_external_data, ("step.onnx", "not a file of the bundle")),
    "unlisted file": (lambda b: (b / "extra.onnx").write_bytes(b"x"), ("extra.onnx", "not listed")),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_bundle_is_refused(name: str, own_bundle: Path, photo: Path, tmp_path: Path) -> None:
    damage, words = DAMAGES[name]
    damage(own_bundle)
    done = run("purify", own_bundle, photo, "-o", tmp_path / "out")
    done.fails(3, *words)
    assert done.stdout == ""
    assert not (tmp_path / "out").exists()


def test_every_command_that_opens_a_bundle_refuses_a_damaged_one(own_bundle: Path, photo: Path) -> None:
    os.truncate(own_bundle / "weights.bin", 1000)
    for arguments in (
        ["verify", own_bundle],
        ["classify", own_bundle, photo],
        ["bench", own_bundle],
        ["plan", own_bundle],
    ):
        run(*arguments).fails(3, "cut off")
    found = run("inspect", own_bundle, "--json")
    sentence = found.fails(3, "cut off")
    message = sentence.removeprefix("error: ")
    assert found.json == {
        "error": {"type": "BundleError", "code": "E-bundle-cut-off", "message": message, "exit_code": 3}
    }


def test_a_graph_that_is_not_onnx_is_refused(own_bundle: Path, photo: Path) -> None:
    model = mask_model()
    model.graph.node[0].op_type = "NoSuchOperator"
    (own_bundle / "mask.onnx").write_bytes(model.SerializeToString())
    rehash(own_bundle)
    done = run("classify", own_bundle, photo, "--preset", "heterogeneous", "--json")
    done.fails(3, "mask.onnx", "NoSuchOperator")
    assert done.json["error"]["code"] == "E-bundle-graph-invalid"


# ---- images ----------------------------------------------------------------------------------------------------------


def with_pixel(value: float) -> np.ndarray:
    one = images(1)
    one[0, 0, 3, 4] = value
    return one


IMAGES: dict[str, tuple[np.ndarray, tuple[str, ...]]] = {
    "size": (np.zeros((1, 1, 16, 20), np.float32), ("[1, 16, 20]", "1, 16, 16", "resize")),
    "channels": (np.zeros((2, 3, 16, 16), np.float32), ("[3, 16, 16]", "expected", "[1, 16, 16]")),
    "dtype": (np.zeros((1, 1, 16, 16), np.int64), ("int64", "uint8")),
    "range": (np.full((1, 1, 16, 16), 200.0, np.float32), ("200", "[0, 1]", "divide it by 255")),
    "model range": (np.full((1, 1, 16, 16), -1.0, np.float32), ("-1", "[0, 1]", "(image + 1) / 2")),
    "nan": (with_pixel(float("nan")), ("NaN", "row 3", "column 4")),
    "inf": (with_pixel(float("inf")), ("infinite", "row 3", "column 4")),
    "empty batch": (np.zeros((0, 1, 16, 16), np.float32), ("empty", "at least one image")),
    "one dimension": (np.zeros(256, np.float32), ("[256]", "[N, C, H, W]")),
    "pickle": (np.array([{"image": 1}]), ("cannot be read", "pickle")),
}


def test_bad_arrays_are_all_refused_and_named(tiny_bundle: Path, tmp_path: Path) -> None:
    paths = {}
    for name, (value, _) in IMAGES.items():
        paths[name] = tmp_path / f"{name}.npy"
        np.save(paths[name], value, allow_pickle=True)
    done = run("purify", tiny_bundle, *paths.values(), "-o", tmp_path / "out")
    assert done.code == 4
    assert done.stdout == "" and "Traceback" not in done.stderr
    for name, (value, words) in IMAGES.items():
        lines = [line for line in done.stderr.splitlines() if line.startswith(f"error: {paths[name]}")]
        assert len(lines) == max(len(value) if value.ndim == 4 else 1, 1), name  # one for each image of a batch
        for word in words:
            assert word in lines[0], f"{word!r} is not in: {lines[0]}"
    assert not (tmp_path / "out").exists()


def test_good_images_are_done_and_bad_ones_listed(tiny_bundle: Path, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "torn.png").write_bytes(photo.read_bytes()[:40])
    (tmp_path / "text.png").write_text("hello")
    inputs = [photo, tmp_path / "torn.png", tmp_path / "missing.png", tmp_path / "text.png"]
    done = run("purify", tiny_bundle, *inputs, "-o", tmp_path / "out", "--json")
    assert done.code == 4
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["photo.png"]
    assert [r["name"] for r in done.json["results"]] == [str(photo)]
    assert [f["name"] for f in done.json["failures"]] == [str(p) for p in inputs[1:]]
    assert "3 of 4 images could not be used; the other one is done" in done.stderr
    table = run("classify", tiny_bundle, *inputs)
    assert table.code == 4
    assert str(photo) in table.stdout
    assert all(f"error: {p}: " in table.stderr for p in inputs[1:])


def test_an_empty_folder_is_no_image(tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    run("classify", tiny_bundle, tmp_path / "empty").fails(4, "empty", "no image", "sub-folders")


# ---- parameters ------------------------------------------------------------------------------------------------------

PARAMETERS: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "timestep": (["--set", "t_star=2000"], ("t_star 2000", "T = 1000")),
    "explicit timestep": (["--set", "timesteps=[1500,3]", "--set", "steps=null"], ("1500",)),
    "t_s above t_l": (["--preset", "heterogeneous", "--set", "t_s=70"], ("t_s 70", "t_l 60")),
    "t_s equal to t_l": (["--preset", "heterogeneous", "--set", "t_s=60"], ("t_s 60", "t_l 60")),
    "jump too far": (["--preset", "heterogeneous", "--set", "t_l=990", "--set", "U=10"], ("990", "10", "T = 1000")),
    "tau above 1": (["--preset", "heterogeneous", "--set", "mask.threshold=1.5"], ("mask.threshold", "1.5")),
    "tau below 0": (["--preset", "heterogeneous", "--set", "mask.threshold=-0.1"], ("mask.threshold", "-0.1")),
    "no mask": (["--set", "method=heterogeneous"], ("method",)),
    "unknown preset": (["--preset", "unifrom"], ("unifrom", "uniform")),
    "unknown key": (["--set", "t_str=5"], ("method.t_str", "did you mean t_star?")),
    "no value": (["--set", "t_star"], ("KEY=VALUE",)),
    "unknown rule": (["--rule", "median"], ("median", "majority")),
    "votes": (["--votes", "0"], ("votes.count", "0")),
    "seed": (["--seed", "-1"], ("seed", "-1")),
    "missing preset file": (["--preset", "nowhere.json"], ("nowhere.json", "cannot be read")),
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_bad_parameter_is_refused(name: str, tiny_bundle: Path, photo: Path) -> None:
    options, words = PARAMETERS[name]
    done = run("classify", tiny_bundle, photo, *options)
    done.fails(2, *words)
    assert done.stdout == ""


def test_plan_refuses_the_same_parameters_without_an_engine() -> None:
    run("plan", "--method", "uniform", "--set", "t_star=1001").fails(2, "t_star 1001", "T = 1000")
    run("plan", "--method", "heterogeneous", "--set", "t_l=50", "--set", "t_s=80").fails(2, "t_s 80")
    run("plan", "--method", "unifrom").fails(2, "unifrom", "heterogeneous")
    run("plan").fails(2, "--method")
    run("plan", "--method", "uniform", "--image", "32x32").fails(2, "32x32", "3x32x32")


def test_an_unknown_provider_is_refused(tiny_bundle: Path, photo: Path) -> None:
    run("classify", tiny_bundle, photo, "--provider", "gpu").fails(5, "unknown provider 'gpu'", "cpu, openvino, cuda")


@pytest.mark.parametrize(
    ("arguments", "number"),
    [
        (("classify", "BUNDLE", ""), 2),
        (("classify", "", "photo.png"), 1),
        (("purify", "BUNDLE", "photo.png", "-o", ""), 4),
        (("verify", "BUNDLE", "--data="), 2),
        (("calibrate", "BUNDLE", "--data", ""), 3),
        (("tune", "BUNDLE", "--data", "", "--budget-calls", "5"), 3),
        (("evaluate", "BUNDLE", "--data", ""), 3),
        (("quantize", "BUNDLE", "--data", ""), 3),
        (("demo", "--out="), 1),
    ],
)
def test_an_empty_path_is_not_the_current_folder(
    arguments: tuple[str, ...], number: int, tiny_bundle: Path, photo: Path
) -> None:
    given = [str(tiny_bundle) if word == "BUNDLE" else word for word in arguments]
    done = run(*given, "--json", cwd=photo.parent)
    message = done.fails(2, f"argument {number} of `edgepure {arguments[0]}` is empty")
    assert message.removeprefix("error: ") == done.json["error"]["message"]
    assert [path.name for path in photo.parent.iterdir()] == ["photo.png"]


def test_a_provider_that_is_not_active_is_an_error_and_no_fallback(tiny_bundle: Path) -> None:
    import onnxruntime

    if "TensorrtExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has every provider")
    done = run("verify", tiny_bundle, "--provider", "tensorrt", "--json")
    done.fails(5, "tensorrt", "choose the provider cpu")
    assert done.json["error"]["code"].startswith("E-provider-")


# ---- files -----------------------------------------------------------------------------------------------------------


def test_outputs_never_meet_inputs_or_each_other(tiny_bundle: Path, photo: Path, tmp_path: Path) -> None:
    before = photo.read_bytes()
    run("purify", tiny_bundle, photo, "-o", tmp_path).fails(2, "photo.png", "would be overwritten")
    run("purify", tiny_bundle, photo, "-o", photo).fails(2, "would be overwritten")
    assert photo.read_bytes() == before
    other = tmp_path / "other"
    other.mkdir()
    Image.new("L", (16, 16)).save(other / "photo.png")
    run("purify", tiny_bundle, photo, other, "-o", tmp_path / "out").fails(2, "photo.png", "would both be written")
    run("purify", tiny_bundle, photo, other, "-o", tmp_path / "one.png").fails(2, "2 images", "folder")
    run("purify", tiny_bundle, photo, "-o", tmp_path / "one.jpg").fails(2, "PNG")
    run("purify", tiny_bundle, photo, "-o", tmp_path / "a", "--mask-out", tmp_path / "m").fails(
        2, "--mask-out", "no mask"
    )
    assert not (tmp_path / "out").exists() and not (tmp_path / "a").exists()


def test_a_full_disk_leaves_nothing_half_written(tiny_bundle: Path, photo: Path, tmp_path: Path) -> None:
    def no_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50, 50))

    target = tmp_path / "purified"
    target.mkdir()
    (target / "photo.png").write_bytes(b"what was there before")
    done = run("purify", tiny_bundle, photo, "-o", target, preexec_fn=no_room)
    done.fails(1, "photo.png")
    assert [p.name for p in target.iterdir()] == ["photo.png"]
    assert (target / "photo.png").read_bytes() == b"what was there before"


def test_a_place_that_cannot_be_written_is_named(tiny_bundle: Path, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    done = run("purify", tiny_bundle, photo, "-o", tmp_path / "file" / "deep")
    done.fails(1, str(tmp_path / "file"))


@pytest.mark.parametrize(
    "name",
    [
        "verify",
        pytest.param("calibrate", marks=pytest.mark.needs("sklearn")),
        pytest.param("quantize", marks=pytest.mark.needs("onnx_ir")),
        pytest.param("tune", marks=pytest.mark.needs("optuna")),
        pytest.param("evaluate", marks=pytest.mark.needs("torch")),
    ],
)
def test_a_report_that_cannot_be_written_stops_the_work_before_it_begins(name: str, photo: Path) -> None:
    asked = {
        "verify": (), "calibrate": ("--data", photo), "quantize": ("--data", photo, "--precision", "int8"),
        "tune": ("--data", photo, "--budget-calls", 5), "evaluate": ("--data", photo),
    }[name]  # fmt: skip
    # there is no bundle: its absence would be the error if anything were opened first
    run(name, photo.parent / "none", *asked, "--report", photo / "r.html").fails(1, "--report", "another place")
    run(name, photo.parent / "none", *asked, "--report", photo.parent).fails(2, "--report", "name of a file")


def test_counters_that_cannot_be_written_stop_before_the_work(tiny_bundle: Path, photo: Path) -> None:
    run("classify", tiny_bundle, photo, "--flag-rate", 0.1, "--metrics", photo / "m.json").fails(1, "--metrics")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_interrupting_leaves_whole_files_only(tiny_bundle: Path, tmp_path: Path, number: int, code: int) -> None:
    np.save(tmp_path / "many.npy", images(2000))
    out = tmp_path / "out"
    process = start(
        "purify", tiny_bundle, tmp_path / "many.npy", "-o", out, "--set", "t_star=1000", "--set", "steps=1000"
    )
    guard = threading.Timer(100, process.kill)
    guard.start()
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("purifying 2000 images"):
                break
        process.send_signal(number)
        stdout, stderr = process.communicate()
    finally:
        guard.cancel()
        process.kill()
    assert process.returncode == code
    assert stdout == "" and "Traceback" not in stderr
    assert "error: interrupted; nothing was left half-written" in stderr
    for path in out.iterdir() if out.exists() else ():
        assert path.suffix == ".png"
        Image.open(path).load()


# ---- defects ---------------------------------------------------------------------------------------------------------


def test_a_traceback_is_shown_only_when_it_is_asked_for(own_bundle: Path) -> None:
    os.truncate(own_bundle / "weights.bin", 10)
    assert "Traceback" not in run("verify", own_bundle).stderr
    asked = run("verify", own_bundle, "--debug")
    assert "Traceback" in asked.stderr and "BundleError" in asked.stderr
    assert asked.code == 3
