"""Bundles that somebody made to do harm: each ends in one clear sentence, and touches nothing outside its folder."""

from __future__ import annotations

import inspect
import os
import shutil
import sys
from pathlib import Path

import minimal_bundle
import numpy as np
import onnx
import pytest
import tiny_bundle
from codes import raises_code
from onnx import TensorProto, helper

from edgepure import load
from edgepure.bundle.bundle import Bundle
from edgepure.bundle.edit import edit_bundle
from edgepure.bundle.external_data import external_tensors
from edgepure.bundle.manifest import Manifest
from edgepure.cli.outputs import check_outputs
from edgepure.errors import EdgepureError
from edgepure.files.folders import atomic_directory
from edgepure.methods.planner import Planner
from edgepure.methods.presets import Preset
from edgepure.rows.plan import MAX_ROWS
from edgepure.rows.schedule import NoiseSchedule


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return tiny_bundle.make_tiny_bundle(tmp_path / "bundle")


# ---- what engines would read and the scan would not see --------------------------------------------------------------


def varint(number: int) -> bytes:
    parts = []
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*parts, number])


def field(number: int, content: bytes, above: int = 0) -> bytes:
    """A field of bytes. ``above``: bits of the tag beyond the 32 that some readers keep."""
    return varint(above << 32 | number << 3 | 2) + varint(len(content)) + content


def entries(above: int = 0, **values: str) -> bytes:
    return b"".join(field(13, field(1, k.encode()) + field(2, v.encode()), above) for k, v in values.items())


def with_tensor(path: Path, tensor: bytes) -> Path:
    """A graph with one more initializer, given as bytes."""
    model = helper.make_model(helper.make_graph([], "g", [], []))
    graph = model.graph.SerializeToString() + field(5, tensor)
    model.ClearField("graph")
    path.write_bytes(model.SerializeToString() + field(7, graph))
    return path


def test_external_data_behind_a_tag_of_more_than_32_bits_is_refused(tmp_path: Path) -> None:
    # ONNX Runtime and OpenVINO keep the lower 32 bits of a tag, and read this tensor from .hidden
    tensor = TensorProto(name="w", data_type=1, dims=[4], data_location=TensorProto.EXTERNAL).SerializeToString()
    plain = with_tensor(tmp_path / "plain.onnx", tensor + entries(location=".hidden"))
    assert [t.location for t in external_tensors(plain)] == [".hidden"]
    with raises_code("E-bundle-graph-invalid"):
        external_tensors(with_tensor(tmp_path / "m.onnx", tensor + entries(above=1, location=".hidden")))


def test_a_tensor_in_two_parts_that_readers_put_together_is_refused(tmp_path: Path) -> None:
    parts = [TensorProto(name="w", data_type=1, dims=[4]).SerializeToString() + entries(location="weights.bin"),
             entries(location="weights.bin", offset="60")]  # fmt: skip
    attribute = field(1, b"value") + b"".join(field(5, part) for part in parts)
    node = field(4, b"Constant") + field(5, attribute)
    (tmp_path / "m.onnx").write_bytes(field(7, field(1, node)))
    with raises_code("E-bundle-graph-invalid"):
        external_tensors(tmp_path / "m.onnx")


# ---- the folder ------------------------------------------------------------------------------------------------------


def test_engines_lead_nowhere_else(bundle: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("private")
    (bundle / "engines" / "gpu").mkdir(parents=True)
    for make in (
        lambda at: at.symlink_to(secret),  # a change of the bundle would take it along
        lambda at: at.symlink_to(tmp_path, target_is_directory=True),  # a build would write there
        os.mkfifo,  # whoever reads it would wait for ever
    ):
        make(bundle / "engines" / "gpu" / "step.fp32.json")
        with raises_code("E-bundle-engines"):
            Bundle.open(bundle)
        (bundle / "engines" / "gpu" / "step.fp32.json").unlink()
    Bundle.open(bundle)


def test_folders_deeper_than_python_may_call_are_one_sentence(bundle: Path) -> None:
    deep = bundle.joinpath(*["d"] * 150)
    deep.mkdir(parents=True)
    (deep / "file").touch()
    usual = sys.getrecursionlimit()
    try:
        sys.setrecursionlimit(len(inspect.stack(0)) + 130)
        with raises_code("E-bundle-unlisted"):
            Bundle.open(bundle)
    finally:
        sys.setrecursionlimit(usual)


def test_what_is_hidden_in_a_bundle_survives_its_changes(bundle: Path) -> None:
    (bundle / ".git" / "refs").mkdir(parents=True)
    (bundle / ".git" / "HEAD").write_text("ref: refs/heads/main")
    (bundle / ".link").symlink_to("nowhere")
    (bundle / ".step.onnx.0123456789ab.tmp").write_text("half")
    bundle.chmod(0o750)
    with edit_bundle(bundle) as edit:
        edit.write("notes.json", b"{}")
    assert (bundle / ".git" / "HEAD").read_text() == "ref: refs/heads/main"
    assert (bundle / ".git" / "refs").is_dir() and os.readlink(bundle / ".link") == "nowhere"
    assert not (bundle / ".step.onnx.0123456789ab.tmp").exists()
    assert bundle.stat().st_mode & 0o777 == 0o750


def test_a_bundle_that_is_exchanged_while_it_is_opened_opens(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgepure.bundle import bundle as module

    real = module.check_files
    done: list[bool] = []

    def exchanged(root: Path, manifest: Manifest) -> None:
        if not done:
            done.append(True)
            shutil.copytree(bundle, bundle.with_name("other"))
            (bundle / "weights.bin").write_bytes(b"")
            bundle.rename(bundle.with_name("old"))
            bundle.with_name("other").rename(bundle)
            root = bundle.with_name("old")
        real(root, manifest)

    monkeypatch.setattr(module, "check_files", exchanged)
    assert Bundle.open(bundle).manifest.name == "tiny"
    (bundle / "weights.bin").write_bytes(b"")
    with raises_code("E-bundle-cut-off"):
        Bundle.open(bundle)


def test_links_that_lead_round_in_a_circle_are_refused(bundle: Path, tmp_path: Path) -> None:
    """Found by `make fuzz`: Path.resolve raises a RuntimeError there."""
    (bundle / "engines").symlink_to("engines")
    with raises_code("E-bundle-engines"):
        Bundle.open(bundle)
    loop = tmp_path / "loop"
    loop.symlink_to("loop")
    for place in (loop, loop / "inside"):
        with raises_code("E-bundle-missing"):
            Bundle.open(place)
        check_outputs([place], "--out", [place.with_name("other")])
        with pytest.raises(EdgepureError), atomic_directory(place) as folder:
            (folder / "file").touch()
    assert sorted(path.name for path in tmp_path.iterdir() if path != bundle) == ["loop"]


def test_a_change_that_was_cut_short_is_ended_by_whoever_opens_the_bundle(bundle: Path) -> None:
    link = bundle.with_name("link")
    link.symlink_to(bundle.name)
    for opened in (bundle, link):
        bundle.rename(bundle.with_name(".bundle.0123456789ab.old"))
        assert Bundle.open(opened).manifest.name == "tiny"
        assert sorted(path.name for path in bundle.parent.iterdir()) == ["bundle", "link"]
    shutil.rmtree(bundle)
    with raises_code("E-bundle-missing"):
        Bundle.open(bundle)


# ---- graphs that are not what the manifest says ----------------------------------------------------------------------


def change_classifier(bundle: Path, weight: np.ndarray, declared: int, *more: str, rows: int = -1) -> None:
    """A classifier of the mean with these weights and more inputs, which says that it has so many classes."""
    info = helper.make_tensor_value_info
    inputs = [info("image", TensorProto.FLOAT, ["batch", 1, 16, 16])]
    inputs += [info(name, TensorProto.FLOAT, [3]) for name in more]
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["mean"]),
        helper.make_node("Reshape", ["mean", "shape"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["logits"]),
    ]
    outputs = [info("logits", TensorProto.FLOAT, ["batch", declared])]
    constants = [onnx.numpy_helper.from_array(weight, "w"), onnx.numpy_helper.from_array(np.array([rows, 1]), "shape")]
    graph = helper.make_graph(nodes, "g", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    (bundle / "classifier.onnx").write_bytes(model.SerializeToString())
    tiny_bundle.rehash(bundle)


def classify(bundle: Path) -> None:
    with load(bundle, threads=1) as purifier:
        purifier.classify(tiny_bundle.images(1))


def test_other_inputs_than_the_manifests_are_refused(bundle: Path) -> None:
    change_classifier(bundle, np.ones((1, 2), np.float32), 2, "more")
    with raises_code("E-bundle-graph-names"):
        classify(bundle)


def test_more_classes_than_the_manifests_are_refused_whatever_the_graph_says(bundle: Path) -> None:
    for declared in (3, 2):
        change_classifier(bundle, np.ones((1, 3), np.float32), declared)
        with raises_code("E-bundle-graph-output"):
            classify(bundle)


def test_logits_that_are_nan_are_no_label(bundle: Path) -> None:
    change_classifier(bundle, np.array([[np.nan, 1.0]], np.float32), 2)
    with raises_code("E-not-finite-logits"):
        classify(bundle)


def test_what_the_engine_raises_in_a_call_is_one_sentence(bundle: Path) -> None:
    change_classifier(bundle, np.ones((1, 2), np.float32), 2, rows=5)
    with raises_code("E-graph-run") as caught:
        classify(bundle)
    assert "\n" not in str(caught.value)


# ---- numbers that would take all time and memory ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "method",
    [
        {"method": "repaint", "jump_n_sample": 10**30},
        {"method": "repaint", "n_sample": 10**30},
        {"method": "gdmp", "rounds": 10**30},
        {"method": "gnsp", "max_timesteps": [1] * (MAX_ROWS + 1), "num_denoising_steps": [1] * (MAX_ROWS + 1)},
    ],
    ids=lambda method: "-".join(map(str, list(method)[:2])) + method["method"],
)
def test_a_plan_without_end_is_refused(method: dict[str, object]) -> None:
    preset = Preset.parse({"method": method, "mask": {"area": 0.5}})
    with raises_code("E-plan-length"):
        Planner(NoiseSchedule.linear(), 256).plan(preset)


@pytest.mark.parametrize(
    ("part", "key"),
    [("ssni", "bias"), ("ssni", "mu"), ("mask", "area"), ("method", "eta")],
)
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_in_presets_are_finite(part: str, key: str, number: float) -> None:
    data = {"method": {"method": "uniform"}, "ssni": {"mu": 1.0, "tau": 1.0}, "mask": {"area": 0.5}}
    Preset.parse(data)
    data[part] = {**data[part], key: number}  # type: ignore[dict-item]
    with raises_code("E-preset"):
        Preset.parse(data)


@pytest.mark.parametrize("ssni", [{"mu": 1.0, "tau": 1.0, "bias": 1e308}, {"mu": 0.0, "tau": 5e-324},
                                  {"reweighting": "linear", "xi_min": 0.0, "xi_max": 5e-324}])  # fmt: skip
def test_a_score_norm_out_of_all_bounds_gets_the_most_noise(ssni: dict[str, object]) -> None:
    preset = Preset.parse({"method": {"method": "uniform", "t_star": 100, "steps": 4}, "ssni": ssni})
    plan = Planner(NoiseSchedule.linear(), 256).plan(preset, score_norm=1e9)
    assert plan.levels["t_star"] in (100.0, 999.0)


@pytest.mark.parametrize(
    "schedule",
    [
        {"kind": "betas", "timesteps": 3, "betas": [5e-324, 0.5, 0.5]},
        {"kind": "betas", "timesteps": 3, "betas": [0.5, 1e-17, 0.5]},
        {"kind": "linear", "timesteps": 1000, "beta_start": 0.5, "beta_end": 0.9},
    ],
)
def test_a_schedule_that_would_divide_by_zero_is_refused(schedule: dict[str, object]) -> None:
    data = {**minimal_bundle.manifest_data(), "schedule": schedule}
    with raises_code("E-schedule-alpha-bar"):
        Manifest.from_data(data)
