"""A bundle is changed whole or not at all."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest
from codes import raises_code
from minimal_bundle import make_bundle

from edgepure.bundle.bundle import Bundle
from edgepure.bundle.edit import edit_bundle
from edgepure.bundle.names import SELFTEST_FILE
from edgepure.errors import BundleError
from edgepure.files import folders
from edgepure.files.atomic import write_bytes


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "bundle")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_files_and_manifest_change_together(bundle: Path) -> None:
    (bundle / "engines" / "gpu").mkdir(parents=True)
    (bundle / "engines" / "gpu" / "step.plan").write_bytes(b"plan")
    before = contents(bundle)
    with edit_bundle(bundle) as edit:
        edit.write("notes/a.json", b"{}")
        edit.add("notes/b.json", bundle / "bundle.json")
        edit.manifest = edit.manifest.model_copy(update={"name": "other"})
        assert contents(bundle) == before
    opened = Bundle.open(bundle)
    assert opened.manifest.name == "other"
    assert {"notes/a.json", "notes/b.json"} <= set(opened.manifest.files)
    assert (bundle / "engines" / "gpu" / "step.plan").read_bytes() == b"plan"
    with edit_bundle(bundle) as edit:
        edit.write("notes/a.json", b"[]")
        edit.remove("notes/b.json")
    assert (bundle / "notes" / "a.json").read_bytes() == b"[]"
    assert "notes/b.json" not in Bundle.open(bundle).manifest.files
    assert os.listdir(bundle.parent) == ["bundle"]


def test_arrays_are_written_beside_what_they_replace(bundle: Path) -> None:
    before = (bundle / SELFTEST_FILE).read_bytes()
    os.link(bundle / SELFTEST_FILE, bundle.parent / "kept")
    with edit_bundle(bundle) as edit:
        edit.write_npz(SELFTEST_FILE, {"a": np.arange(3)})
        assert (bundle / SELFTEST_FILE).read_bytes() == before
    assert Bundle.open(bundle).manifest.files[SELFTEST_FILE].bytes == (bundle / SELFTEST_FILE).stat().st_size
    with np.load(bundle / SELFTEST_FILE, allow_pickle=False) as arrays:
        assert arrays["a"].tolist() == [0, 1, 2]
    assert (bundle.parent / "kept").read_bytes() == before, "the old file is not written through its other name"


def test_two_changes_that_end_together_do_not_both_succeed(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused: list[BundleError] = []

    def other() -> None:
        try:
            with edit_bundle(bundle) as edit:
                edit.write("other.json", b"{}")
        except BundleError as error:
            refused.append(error)

    second = threading.Thread(target=other)
    sync = folders._sync_tree

    def slow_sync(folder: Path) -> None:  # the last thing before the first change takes the bundle's place
        sync(folder)
        if threading.current_thread() is not second:
            second.start()
            second.join(0.5)

    monkeypatch.setattr(folders, "_sync_tree", slow_sync)
    with edit_bundle(bundle) as edit:
        edit.write("first.json", b"{}")
    second.join()
    assert "changed by something else" in str(refused[0])
    assert "first.json" in Bundle.open(bundle).manifest.files


def test_engines_that_are_built_while_it_changes_stay(bundle: Path) -> None:
    folder = bundle / "engines" / "gpu"
    folder.mkdir(parents=True)
    (folder / "old.plan").write_bytes(b"old")
    (folder / "gone.plan").write_bytes(b"gone")
    with edit_bundle(bundle) as edit:
        edit.write("notes/a.json", b"{}")
        write_bytes(folder / "old.plan", b"built again")
        write_bytes(folder / "new.plan", b"new")
        (folder / "gone.plan").unlink()
    assert "notes/a.json" in Bundle.open(bundle).manifest.files
    assert contents(folder) == {"old.plan": b"built again", "new.plan": b"new"}


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, ValueError])
def test_an_error_changes_nothing(bundle: Path, error: type[BaseException]) -> None:
    before = contents(bundle)

    def change() -> None:
        with edit_bundle(bundle) as edit:
            edit.write("weights.bin", b"wrong")
            edit.manifest = edit.manifest.model_copy(update={"name": "other"})
            raise error("stop")

    with pytest.raises(BaseException, match="stop"):
        change()
    assert contents(bundle) == before
    assert os.listdir(bundle.parent) == ["bundle"]


def test_an_invalid_result_changes_nothing(bundle: Path) -> None:
    before = contents(bundle)

    def lose_a_graph() -> None:
        with edit_bundle(bundle) as edit:
            edit.remove("step.onnx")

    with raises_code("E-bundle-graph-unlisted"):
        lose_a_graph()
    assert contents(bundle) == before


@pytest.mark.parametrize("name", ["../out", "/etc/x", "bundle.json", "engines/x", ".hidden"])
def test_names_outside_are_refused(bundle: Path, name: str) -> None:
    with edit_bundle(bundle) as edit, raises_code("E-bundle-file-name"):
        edit.write(name, b"")


def test_a_damaged_bundle_is_not_blessed(bundle: Path) -> None:
    weights = bundle / "weights.bin"
    weights.write_bytes(bytes([weights.read_bytes()[0] ^ 1]) + weights.read_bytes()[1:])
    with raises_code("E-bundle-hash"), edit_bundle(bundle):
        pass


def test_two_changes_at_once_do_not_mix(bundle: Path) -> None:
    def both() -> None:
        with edit_bundle(bundle) as outer:
            outer.write("notes/outer", b"1")
            with edit_bundle(bundle) as inner:
                inner.write("notes/inner", b"2")

    with raises_code("E-bundle-busy"):
        both()
    assert "notes/inner" in Bundle.open(bundle).manifest.files
