"""Opening a bundle: what is whole opens, everything else is refused with its own sentence before anything is used."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import minimal_bundle
import pytest
from codes import raises_code
from hypothesis import given
from hypothesis import strategies as st

from edgepure.bundle.bundle import Bundle, hash_files, update_manifest, write_manifest
from edgepure.bundle.manifest_text import MAX_MANIFEST_BYTES
from edgepure.errors import BundleError, EdgepureError

LISTED = ["classifier.onnx", "mask.onnx", "selftest.npz", "step.onnx", "unet.onnx", "weights.bin"]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Written once; tests that change it use `bundle`."""
    return minimal_bundle.make_bundle(tmp_path_factory.mktemp("original") / "bundle")


@pytest.fixture
def bundle(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "bundle"))


def refusal(path: Path, verify: bool = True) -> str:
    with pytest.raises(BundleError) as caught:
        Bundle.open(path, verify=verify)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def flip(path: Path, position: int, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1 << bit
    path.write_bytes(bytes(data))


# ---- what is whole ---------------------------------------------------------------------------------------------------


def test_whole_bundle_opens(original: Path) -> None:
    opened = Bundle.open(original)
    assert opened.path == original.resolve()
    assert opened.manifest.name == "minimal"
    assert sorted(opened.verified_hashes) == LISTED
    for name, measured in opened.verified_hashes.items():
        assert measured == hashlib.sha256((original / name).read_bytes()).hexdigest()
    assert opened.content_hash == hashlib.sha256((original / "bundle.json").read_bytes()).hexdigest()
    assert opened.graph_path("step") == original.resolve() / "step.onnx"
    assert Bundle.open(str(original)) == opened


def test_without_verification_nothing_is_called_verified(original: Path) -> None:
    assert Bundle.open(original, verify=False).verified_hashes == {}


def test_unknown_graph_is_named_with_those_that_exist(original: Path) -> None:
    with raises_code("E-bundle-graph-missing"):
        Bundle.open(original).graph_path("step_learned")


def test_graphs_run_with_their_external_weights(original: Path) -> None:
    ort = pytest.importorskip("onnxruntime")
    opened = Bundle.open(original)
    vectors = opened.selftest()
    for graph in opened.manifest.graphs:
        session = ort.InferenceSession(str(opened.graph_path(graph)), providers=["CPUExecutionProvider"])
        outputs = session.run(None, dict(vectors.graphs[graph].inputs))
        assert [o.shape for o in outputs] == [o.shape for o in vectors.graphs[graph].outputs.values()]
        assert float(outputs[0].max()) == sum(range(16))  # of the tensor in weights.bin


def test_engines_and_hidden_files_are_ignored(bundle: Path) -> None:
    (bundle / "engines" / "a device").mkdir(parents=True)
    (bundle / "engines" / "a device" / "step.plan").write_bytes(b"not hashed")
    (bundle / ".bundle.json.0123.tmp").touch()
    (bundle / ".cache").mkdir()
    (bundle / ".cache" / "x").touch()
    assert Bundle.open(bundle).engines_path == bundle.resolve() / "engines"


def test_bundle_may_be_reached_through_a_symlink_and_relative_paths(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(bundle)
    assert Bundle.open(tmp_path / "link").path == bundle.resolve()
    monkeypatch.chdir(bundle)
    assert Bundle.open(".").path == bundle.resolve()


def test_symlink_inside_the_bundle_is_fine(bundle: Path) -> None:
    (bundle / "weights.bin").rename(bundle / ".weights")
    (bundle / "weights.bin").symlink_to(".weights")
    Bundle.open(bundle)


# ---- missing, renamed, damaged ---------------------------------------------------------------------------------------


def test_missing_folder_file_and_manifest(bundle: Path, tmp_path: Path) -> None:
    assert "the folder does not exist; check the path" in refusal(tmp_path / "nowhere")
    assert "is a file, expected a bundle's folder" in refusal(bundle / "bundle.json")
    (bundle / "bundle.json").unlink()
    assert "is not a bundle: it holds no bundle.json" in refusal(bundle)


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("name", LISTED)
def test_missing_file_is_named(bundle: Path, name: str, verify: bool) -> None:
    (bundle / name).unlink()
    message = refusal(bundle, verify)
    assert f"{name} is missing, but bundle.json lists it" in message


def test_renamed_file_is_recognised_by_its_contents(bundle: Path) -> None:
    (bundle / "weights.bin").rename(bundle / "weights.bin.1")
    assert "weights.bin is missing: it was renamed to weights.bin.1; rename it back" in refusal(bundle)


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("name", LISTED)
def test_cut_off_and_longer_files_are_named(bundle: Path, name: str, verify: bool) -> None:
    data = (bundle / name).read_bytes()
    (bundle / name).write_bytes(data[:-1])
    assert f"{name} is cut off: it has {len(data) - 1} of {len(data)} bytes" in refusal(bundle, verify)
    (bundle / name).write_bytes(data + b"\0")
    assert f"{name} is not the file that was exported: it has {len(data) + 1} bytes" in refusal(bundle, verify)


@pytest.fixture(scope="module")
def fuzzed(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy that each example repairs after itself."""
    copy = Path(shutil.copytree(original, tmp_path_factory.mktemp("fuzzed") / "bundle"))
    yield copy
    Bundle.open(copy)


@given(name=st.sampled_from(LISTED), where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_any_flipped_bit_is_found(fuzzed: Path, name: str, where: float, bit: int) -> None:
    position = int(where * (fuzzed / name).stat().st_size)
    flip(fuzzed / name, position, bit)
    try:
        message = refusal(fuzzed)
    finally:
        flip(fuzzed / name, position, bit)
    assert f"{name} is damaged or was changed: its SHA-256 is" in message


@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_flipped_bit_in_the_manifest_never_gives_another_error(fuzzed: Path, where: float, bit: int) -> None:
    path = fuzzed / "bundle.json"
    position = int(where * path.stat().st_size)
    flip(path, position, bit)
    try:
        Bundle.open(fuzzed)
        message = None  # a letter of a name may change unnoticed: the manifest is not signed
    except BundleError as error:
        message = str(error)
    finally:
        flip(path, position, bit)
    assert message is None or str(fuzzed.resolve()) in message


def test_unlisted_file_is_refused(bundle: Path) -> None:
    (bundle / "extra.onnx").touch()
    assert "extra.onnx is not listed in bundle.json" in refusal(bundle)
    (bundle / "sub").mkdir()
    (bundle / "sub" / "more").touch()
    assert "extra.onnx (and 1 more) is not listed" in refusal(bundle)


def test_huge_manifest_is_refused_unread(bundle: Path) -> None:
    with open(bundle / "bundle.json", "r+b") as file:
        file.truncate(MAX_MANIFEST_BYTES + 1)
    assert "a manifest may have" in refusal(bundle)


def test_manifest_fault_names_the_file(bundle: Path) -> None:
    data = json.loads((bundle / "bundle.json").read_text())
    data["imag"] = data.pop("image")
    (bundle / "bundle.json").write_text(json.dumps(data))
    assert refusal(bundle).startswith(f"{bundle.resolve() / 'bundle.json'}: unknown key imag: did you mean image?")


def test_unreadable_file_is_named(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: Path) -> str:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("edgepure.bundle.checks.hash_file", denied)
    assert "cannot be read: Permission denied (" in refusal(bundle)


# ---- nothing leaves the directory ------------------------------------------------------------------------------------


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("name", ["weights.bin", "step.onnx", "selftest.npz", "bundle.json"])
def test_symlink_out_of_the_bundle_is_refused(bundle: Path, tmp_path: Path, name: str, verify: bool) -> None:
    outside = tmp_path / "outside"
    (bundle / name).rename(outside)
    (bundle / name).symlink_to(outside)
    assert f"{name} is a symlink that leaves the bundle (to {outside.resolve()})" in refusal(bundle, verify)


def test_symlink_to_nowhere_and_loop_are_refused(bundle: Path) -> None:
    for target in ("nowhere", "weights.bin"):
        (bundle / "weights.bin").unlink()
        (bundle / "weights.bin").symlink_to(target)
        assert "weights.bin is a symlink that leads nowhere" in refusal(bundle)


def test_folder_that_is_a_symlink_is_refused(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_bytes(b"x")
    (bundle / "sub").symlink_to(tmp_path / "outside")
    assert "sub is not listed" in refusal(bundle)
    data = json.loads((bundle / "bundle.json").read_text())
    data["files"]["sub/file"] = {"sha256": hashlib.sha256(b"x").hexdigest(), "bytes": 1}
    (bundle / "bundle.json").write_text(json.dumps(data))
    assert "sub/file is a symlink that leaves the bundle" in refusal(bundle)


def test_engines_must_stay_inside(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (bundle / "engines").symlink_to(tmp_path / "outside")
    assert "engines is not a folder inside the bundle" in refusal(bundle)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipe_is_refused_and_not_waited_for(bundle: Path) -> None:
    (bundle / "weights.bin").unlink()
    os.mkfifo(bundle / "weights.bin")
    assert "weights.bin is not a regular file" in refusal(bundle)


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize(
    "location",
    ["../evil", "/etc/hostname", "sub/../../evil", "evil", "", ".", "*/_ORT_MEM_ADDR_/*", "weights.bin\0", "..\\evil"],
)
def test_external_tensor_outside_the_bundle_is_refused(bundle: Path, location: str, verify: bool) -> None:
    (bundle.parent / "evil").write_bytes(bytes(64))
    (bundle / "unet.onnx").write_bytes(minimal_bundle.graph_model("unet", location).SerializeToString())
    minimal_bundle.rehash(bundle)
    message = refusal(bundle, verify)
    assert f"unet.onnx keeps a tensor in {location!r}, which is not a file of the bundle" in message


def test_external_tensor_beyond_its_file_is_refused(bundle: Path) -> None:
    model = minimal_bundle.graph_model("unet")
    model.graph.initializer[0].CopyFrom(minimal_bundle.external_tensor("weights.bin", offset="1"))
    (bundle / "unet.onnx").write_bytes(model.SerializeToString())
    minimal_bundle.rehash(bundle)
    assert "unet.onnx keeps a tensor at bytes 1 to 65 of weights.bin, which has 64" in refusal(bundle)


def test_graphs_in_a_subfolder_find_their_weights_beside_them(bundle: Path) -> None:
    (bundle / "sub").mkdir()
    for name in ("unet.onnx", "weights.bin"):
        shutil.copy(bundle / name, bundle / "sub" / name)
    (bundle / "unet.onnx").unlink()
    graphs = minimal_bundle.manifest_data()["graphs"]
    graphs["unet"]["file"] = "sub/unet.onnx"
    minimal_bundle.rehash(bundle, graphs=graphs)
    assert Bundle.open(bundle).graph_path("unet") == bundle.resolve() / "sub" / "unet.onnx"
    (bundle / "sub" / "weights.bin").unlink()
    minimal_bundle.rehash(bundle, graphs=graphs)
    assert "sub/unet.onnx keeps a tensor in 'weights.bin'" in refusal(bundle)


def test_what_is_not_onnx_is_refused(bundle: Path) -> None:
    for data, says in ((b"", "is empty"), (b"\xff" * 40, "is not a valid ONNX graph")):
        (bundle / "mask.onnx").write_bytes(data)
        minimal_bundle.rehash(bundle)
        assert says in refusal(bundle)


# ---- writing ---------------------------------------------------------------------------------------------------------


def test_hash_files_leaves_out_what_is_never_listed(bundle: Path) -> None:
    (bundle / "engines").mkdir()
    (bundle / "engines" / "x").touch()
    (bundle / ".hidden").touch()
    assert sorted(hash_files(bundle)) == LISTED
    assert hash_files(bundle)["weights.bin"].bytes == minimal_bundle.TENSOR_BYTES


def test_hash_files_refuses_what_no_bundle_may_hold(bundle: Path, tmp_path: Path) -> None:
    (bundle / "a name with spaces").touch()
    with raises_code("E-bundle-file-name"):
        hash_files(bundle)
    (bundle / "a name with spaces").unlink()
    (bundle / "link").symlink_to(bundle / "step.onnx")
    with raises_code("E-bundle-irregular"):
        hash_files(bundle)


def test_update_rewrites_the_manifest_and_nothing_else(bundle: Path) -> None:
    before = hash_files(bundle)
    calibration = minimal_bundle.calibration()
    new = update_manifest(bundle, lambda m: m.model_copy(update={"calibration": calibration}))
    opened = Bundle.open(bundle)
    assert opened.manifest == new
    assert opened.manifest.calibration == calibration
    assert hash_files(bundle) == before
    assert sorted(p.name for p in bundle.iterdir()) == sorted([*LISTED, "bundle.json"])


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"default_preset": "gone"}, "E-bundle-default-preset"),
        ({"calibration": {"mu": 2}}, "E-key-unknown"),
        ({"presets": {"uniform": {"method": {"method": "uniform", "tstar": 1}}}}, "E-key-unknown"),
        ({"files": {}}, "E-bundle-manifest-value"),
    ],
)
def test_update_that_is_not_valid_changes_nothing(bundle: Path, change: dict[str, Any], code: str) -> None:
    before = (bundle / "bundle.json").read_bytes()
    with raises_code(code):
        update_manifest(bundle, lambda m: m.model_copy(update=change))
    assert (bundle / "bundle.json").read_bytes() == before


def test_manifest_that_does_not_fit_the_files_is_not_written(bundle: Path) -> None:
    manifest = Bundle.open(bundle).manifest
    (bundle / "unet.onnx").unlink()
    before = (bundle / "bundle.json").read_bytes()
    with raises_code("E-bundle-file-missing"):
        write_manifest(bundle, manifest)
    assert (bundle / "bundle.json").read_bytes() == before


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_interrupted_update_keeps_the_old_manifest(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def failing(*args: Any) -> None:
        raise error

    before = (bundle / "bundle.json").read_bytes()
    monkeypatch.setattr(os, "replace", failing)
    expected: type[BaseException] = EdgepureError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        update_manifest(bundle, lambda m: m.model_copy(update={"name": "other"}))
    monkeypatch.undo()
    assert (bundle / "bundle.json").read_bytes() == before
    assert Bundle.open(bundle).manifest.name == "minimal"
    assert sorted(p.name for p in bundle.iterdir()) == sorted([*LISTED, "bundle.json"])


def test_change_may_raise(bundle: Path) -> None:
    def change(manifest: Any) -> Any:
        raise RuntimeError("calibration failed")

    before = (bundle / "bundle.json").read_bytes()
    with pytest.raises(RuntimeError, match="calibration failed"):
        update_manifest(bundle, change)
    assert (bundle / "bundle.json").read_bytes() == before
