"""selftest.npz: read without unpickling, checked against the manifest, bounded in size."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import minimal_bundle
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepure.bundle import selftest
from edgepure.bundle.manifest import Manifest
from edgepure.bundle.selftest import read_selftest
from edgepure.errors import BundleError
from edgepure.files.atomic import write_npz

MANIFEST = Manifest.from_data(minimal_bundle.manifest_data())
Arrays = dict[str, np.ndarray]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "selftest.npz"


def refusal(path: Path) -> str:
    with pytest.raises(BundleError) as caught:
        read_selftest(path, MANIFEST)
    message = str(caught.value)
    assert message.startswith("selftest.npz: ")
    assert message.endswith("; export the bundle again")
    return message


def test_vectors_come_back_by_graph_and_preset(path: Path) -> None:
    arrays = minimal_bundle.selftest_arrays()
    write_npz(path, arrays)
    found = read_selftest(path, MANIFEST)
    assert set(found.graphs) == set(minimal_bundle.GRAPHS)
    assert list(found.graphs["step"].inputs) == ["x", "ref", "mask", "noise", "coeffs"]
    np.testing.assert_array_equal(found.graphs["step"].inputs["coeffs"], arrays["step/in/coeffs"])
    np.testing.assert_array_equal(found.graphs["mask"].outputs["attention"], arrays["mask/out/attention"])
    assert set(found.pipelines) == {"uniform", "heterogeneous"}
    assert found.pipelines["uniform"].seed == 11
    assert found.pipelines["uniform"].mask is None
    np.testing.assert_array_equal(found.pipelines["heterogeneous"].mask, arrays["pipeline/heterogeneous/mask"])
    np.testing.assert_array_equal(found.pipelines["uniform"].purified, arrays["pipeline/uniform/purified"])


def test_numpy_savez_files_are_read(path: Path) -> None:
    np.savez(path, **minimal_bundle.selftest_arrays())
    assert read_selftest(path, MANIFEST).pipelines["uniform"].seed == 11


def test_presets_without_vectors_are_left_out(path: Path) -> None:
    arrays = {k: v for k, v in minimal_bundle.selftest_arrays().items() if not k.startswith("pipeline/uniform")}
    write_npz(path, arrays)
    assert set(read_selftest(path, MANIFEST).pipelines) == {"heterogeneous"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda a: a.pop("step/in/noise"), "'step/in/noise' is missing"),
        (lambda a: a.pop("mask/out/mask"), "'mask/out/mask' is missing"),
        (lambda a: a.pop("pipeline/uniform/seed"), "'pipeline/uniform/seed' is missing"),
        (lambda a: a.pop("pipeline/heterogeneous/mask"), "'pipeline/heterogeneous/mask' is missing"),
        (
            lambda a: a.update({"pipeline/uniform/mask": a["pipeline/heterogeneous/mask"]}),
            "'pipeline/uniform/mask' does not belong to its preset",
        ),
        (
            lambda a: a.update({"step_learned/in/x": a["step/in/x"]}),
            "'step_learned/in/x.npy' is unknown or there twice",
        ),
        (lambda a: a.update({"pipeline/gone/image": a["step/in/x"]}), "'pipeline/gone/image.npy' is unknown"),
        (
            lambda a: a.update({"unet/in/t": a["unet/in/t"].astype(np.float64)}),
            "'unet/in/t' is float64 [2], expected float32 ['batch']",
        ),
        (
            lambda a: a.update({"unet/in/x": a["unet/in/x"][:, :, :, :4]}),
            "'unet/in/x' is float32 [2, 1, 4, 4], expected float32 ['batch', 1, 4, 5]",
        ),
        (lambda a: a.update({"unet/in/x": a["unet/in/x"][:1]}), "'unet/in/x' is float32 [1, 1, 4, 5], expected"),
        (
            lambda a: a.update({"unet/in/t": np.zeros(3, np.float32)}),
            "the arrays of 'unet/' have different batch sizes [2, 3]",
        ),
        (lambda a: a["step/out/x_next"].__setitem__((0, 0, 0, 0), np.nan), "'step/out/x_next' holds NaN"),
        (lambda a: a["pipeline/uniform/image"].__setitem__((0, 0, 0, 0), 1.5), "has values outside [0, 1]"),
        (lambda a: a["pipeline/heterogeneous/mask"].__setitem__((0, 0, 0, 0), 0.5), "has values other than 0 and 1"),
        (lambda a: a.update({"pipeline/uniform/seed": np.arange(2)}), "'pipeline/uniform/seed' is int64 [2], expected"),
        (lambda a: a.update({"pipeline/uniform/seed": np.float32(1)}), "is float32 [], expected int64 []"),
    ],
)
def test_each_fault_has_its_sentence(path: Path, change: Callable[[Arrays], Any], says: str) -> None:
    arrays = minimal_bundle.selftest_arrays()
    change(arrays)
    write_npz(path, arrays)
    assert says in refusal(path)


def with_states(**changes: np.ndarray) -> Arrays:
    """The states of three rows of the uniform preset."""
    arrays = minimal_bundle.selftest_arrays()
    prefix, images = "pipeline/uniform/", arrays["pipeline/uniform/image"]
    arrays[prefix + "rows"] = np.array([0, 3, 5])
    arrays[prefix + "states"] = np.repeat(4.0 * images[:, None], 3, axis=1).astype(np.float32)
    return arrays | {prefix + key: value for key, value in changes.items()}


def test_states_of_rows(path: Path) -> None:
    arrays = with_states()
    write_npz(path, arrays)
    found = read_selftest(path, MANIFEST).pipelines
    assert found["uniform"].rows == (0, 3, 5)
    np.testing.assert_array_equal(found["uniform"].states, arrays["pipeline/uniform/states"])
    assert found["heterogeneous"].rows is None and found["heterogeneous"].states is None


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"rows": np.array([0, 3])}, "must rise from 0 on and name one row for each"),
        ({"rows": np.array([0, 3, 3])}, "must rise from 0 on"),
        ({"rows": np.array([-1, 3, 5])}, "must rise from 0 on"),
        ({"rows": np.array([0.0, 3.0, 5.0])}, "is float64 [3], expected int64 ['rows']"),
        ({"rows": np.zeros(0, np.int64)}, "is int64 [0], expected int64 ['rows']"),
        ({"states": np.zeros((3, 3, 1, 4, 5), np.float32)}, "have different batch sizes [2, 3]"),
        ({"states": np.zeros((2, 3, 1, 4, 4), np.float32)}, "expected float32 ['batch', 'rows', 1, 4, 5]"),
        ({"states": np.full((2, 3, 1, 4, 5), np.inf, np.float32)}, "holds NaN or infinities"),
    ],
)
def test_states_that_do_not_fit(path: Path, changes: dict[str, np.ndarray], says: str) -> None:
    write_npz(path, with_states(**changes))
    assert says in refusal(path)


@pytest.mark.parametrize("missing", ["rows", "states"])
def test_rows_and_states_come_together(path: Path, missing: str) -> None:
    arrays = with_states()
    del arrays[f"pipeline/uniform/{missing}"]
    write_npz(path, arrays)
    assert f"'pipeline/uniform/{missing}' is missing" in refusal(path)


def test_nothing_is_unpickled(path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return exec, ("raise SystemExit('unpickled')",)

    arrays: dict[str, Any] = {**minimal_bundle.selftest_arrays(), "unet/in/t": np.array([Bomb(), Bomb()], dtype=object)}
    np.savez(path, **arrays)
    with pytest.raises(SystemExit):
        np.load(path, allow_pickle=True)["unet/in/t"]  # the bomb is real
    assert "elements of the type object, expected numbers" in refusal(path)


def test_file_that_unpacks_to_too_much_is_refused_before_unpacking(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest, "MAX_SELFTEST_BYTES", 1000)
    write_npz(path, minimal_bundle.selftest_arrays())
    monkeypatch.setattr(zipfile.ZipFile, "open", None)
    assert "bytes, at most 1000 are allowed" in refusal(path)


def test_header_that_announces_more_than_there_is(path: Path) -> None:
    member = io.BytesIO()
    np.lib.format.write_array_header_1_0(member, {"descr": "<f4", "fortran_order": False, "shape": (1 << 40, 1, 4, 5)})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("unet/in/x.npy", member.getvalue())
    assert "'unet/in/x' announces" in refusal(path)


def test_fortran_order_is_refused(path: Path) -> None:
    arrays = minimal_bundle.selftest_arrays()
    np.savez(path, **{**arrays, "unet/in/x": np.asfortranarray(arrays["unet/in/x"])})
    assert "in C order" in refusal(path)


def test_member_that_is_there_twice_is_refused(path: Path) -> None:
    write_npz(path, minimal_bundle.selftest_arrays())
    with zipfile.ZipFile(path) as archive:
        data = archive.read("unet/in/t.npy")
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("unet/in/t.npy", data)
    assert "'unet/in/t.npy' is unknown or there twice" in refusal(path)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    path = tmp_path_factory.mktemp("selftest") / "selftest.npz"
    write_npz(path, minimal_bundle.selftest_arrays())
    return path, path.read_bytes()


@given(where=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255), length=st.floats(0, 1))
def test_damaged_files_are_read_or_refused(scratch: tuple[Path, bytes], where: float, byte: int, length: float) -> None:
    path, data = scratch
    position = int(where * len(data))
    damaged = data[:position] + bytes([byte]) + data[position + 1 :]
    for contents in (damaged, data[: int(length * (len(data) - 1))]):
        path.write_bytes(contents)
        try:
            found = read_selftest(path, MANIFEST)
        except BundleError:
            continue
        assert set(found.graphs) == set(minimal_bundle.GRAPHS)
