"""What long work keeps: whole parts by all that they depend on, whatever ends a run, and nothing else is touched."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from codes import raises_code
from tiny_bundle import make_tiny_bundle

from edgepure.bundle.bundle import Bundle
from edgepure_calibration.work import Arrays, Work, bundle_key, open_work, remove_work_folder

WHAT = {"what": "noise seed"}


def seed(value: int) -> Arrays:
    return {"seed": np.array(value)}


def objects(data: bytes) -> bytes:
    """Arrays that only a pickle can hold."""
    file = io.BytesIO()
    np.savez(file, other=np.array([object()], dtype=object))
    return file.getvalue()


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut off": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "something else": lambda data: b"\xff" + data[::-1],
    "objects": objects,
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_what_cannot_be_read_is_made_anew(tmp_path: Path, kind: str) -> None:
    work = Work(tmp_path, {})
    work.part(WHAT, lambda: seed(1))
    work.remember(WHAT, {"a": [1, 2]})
    assert work.recall(WHAT) == {"a": [1, 2]}
    for path in tmp_path.iterdir():
        path.write_bytes(DAMAGES[kind](path.read_bytes()))
    assert work.get(WHAT) is None and work.recall(WHAT) is None
    assert int(work.part(WHAT, lambda: seed(2))["seed"]) == 2
    assert int(work.part(WHAT, lambda: seed(3))["seed"]) == 2
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("links", [True, False], ids=["", "a file system without hard links"])
def test_runs_that_begin_together_draw_one_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    if not links:

        def refused(*_: object) -> None:
            raise OSError("no links here")

        monkeypatch.setattr(os, "link", refused)
    one, other = (Work(tmp_path / "work", {"bundle": "b"}) for _ in range(2))

    def slow() -> Arrays:
        assert int(other.part(WHAT, lambda: seed(2))["seed"]) == 2
        return seed(1)

    assert int(one.part(WHAT, slow)["seed"]) == 2, "the first that was kept is that of all"
    assert int(one.part(WHAT, lambda: seed(3))["seed"]) == 2
    assert len(list((tmp_path / "work").iterdir())) == 1, "nothing else is left there"


def test_what_depends_on_something_else_is_another_part(tmp_path: Path) -> None:
    work = Work(tmp_path, {"bundle": "a"})
    work.remember(WHAT, 1)
    assert Work(tmp_path, {"bundle": "b"}).recall(WHAT) is None
    assert work.depending({"data": "d"}).recall(WHAT) is None
    assert work.recall({**WHAT, "seed": 2}) is None
    assert Work(tmp_path, {"bundle": "a"}).recall(dict(reversed([*WHAT.items()]))) == 1
    assert Work(None, {"bundle": "a"}).recall(WHAT) is None, "without a folder nothing is kept"


def test_a_killed_run_leaves_nothing_that_stops_the_next(tmp_path: Path) -> None:
    """Whatever it was writing: temporary files, a scratch folder with anything in it."""
    folder = tmp_path / "work"
    with open_work(folder, {}) as work:
        work.remember(WHAT, 1)
        (work.scratch("ranges") / "taps.bin").write_bytes(b"half")
        (folder / ".0123.npz.tmp").write_bytes(b"half")
        (folder / "mine.txt").write_text("somebody else's")
        killed = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for path, content in killed.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    with open_work(folder, {}) as work:
        assert work.recall(WHAT) == 1
        assert not list(work.scratch("ranges").iterdir())
        assert not list(folder.glob(".*.tmp"))
    assert (folder / "mine.txt").read_text() == "somebody else's"
    assert len(list(folder.iterdir())) == 2


def test_a_full_disk_is_an_error_and_spoils_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = Work(tmp_path, {})
    work.remember(WHAT, 1)
    work.put(WHAT, seed(1))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for keep in (lambda: work.remember(WHAT, 2), lambda: work.put(WHAT, seed(2))):
        with raises_code("E-disk-full"):
            keep()
    monkeypatch.undo()
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_folder_that_nothing_came_of_is_not_left(tmp_path: Path) -> None:
    with open_work(tmp_path / "work", {}):
        pass
    assert not (tmp_path / "work").exists()
    remove_work_folder(tmp_path / "work")  # nor is it missed


def test_not_inside_a_bundle(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path / "tiny")
    before = sorted(bundle.rglob("*"))
    with raises_code("E-work-place"), open_work(bundle / "work", {}):
        pass
    assert sorted(bundle.rglob("*")) == before


def test_one_run_at_a_time_unless_they_share(tmp_path: Path) -> None:
    with open_work(tmp_path, {}), raises_code("E-in-use"), open_work(tmp_path, {}):
        pass
    with open_work(tmp_path, {}, shared=True), open_work(tmp_path, {}, shared=True) as work:
        work.remember(WHAT, 1)


def test_the_key_of_a_bundle_is_of_the_graphs_in_use(tmp_path: Path) -> None:
    """Not of presets or cards, nor of another precision: adding a variant must not spoil what fp32 has measured."""
    manifest = Bundle.open(make_tiny_bundle(tmp_path / "tiny")).manifest
    key = bundle_key(manifest)
    assert bundle_key(manifest.model_copy(update={"presets": {}, "calibration": None})) == key
    other = manifest.files["weights.bin"]
    added = {**manifest.files, "variants/int8/weights.bin": other, "notes.txt": other}
    assert bundle_key(manifest.model_copy(update={"files": added})) == key
    changed = {**manifest.files, "weights.bin": other.model_copy(update={"sha256": "0" * 64})}
    assert bundle_key(manifest.model_copy(update={"files": changed})) != key
    schedule = manifest.schedule.model_copy(update={"timesteps": 7})
    assert bundle_key(manifest.model_copy(update={"schedule": schedule})) != key
