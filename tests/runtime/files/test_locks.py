"""Locks between real processes: one at a time, nothing left behind, and none held by the dead."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cli_process import environment

from edgepure.errors import ConfigError, EdgepureError
from edgepure.files.locks import locked, remove_work_folder, work_folder

pytest.importorskip("fcntl", reason="this system has no such locks")

HOLD = """
import sys
from pathlib import Path
from edgepure.locks import work_folder
with work_folder(Path(sys.argv[1]), shared=bool(sys.argv[2])):
    print("held", flush=True)
    sys.stdin.read()
"""
Hold = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def hold() -> Iterator[Hold]:
    """Starts a process that is at work in a folder until its input ends."""
    started: list[subprocess.Popen[str]] = []

    def start(folder: Path, *, shared: bool = False) -> subprocess.Popen[str]:
        words = [sys.executable, "-c", HOLD, str(folder), "shared" if shared else ""]
        process = subprocess.Popen(
            words, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )  # fmt: skip
        started.append(process)
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_second_run_is_told_and_a_killed_one_is_in_nobodys_way(tmp_path: Path, hold: Hold) -> None:
    folder = tmp_path / "some" / "work"
    other = hold(folder)
    for shared in (False, True):
        with pytest.raises(EdgepureError, match=r"another run is at work in the folder .*work; wait .* \(--work\)"):
            work_folder(folder, shared=shared).__enter__()
    remove_work_folder(folder)
    assert folder.is_dir(), "it is the other run's"
    other.kill()
    other.wait()
    with work_folder(folder):
        assert os.listdir(folder) == []
    with work_folder(folder):  # it was let go
        pass
    remove_work_folder(folder)
    remove_work_folder(folder)  # it is not there: nothing to do
    assert not folder.exists()


def test_runs_that_share_leave_the_folder_to_the_last(tmp_path: Path, hold: Hold) -> None:
    folder = tmp_path / "work"
    other = hold(folder, shared=True)
    with work_folder(folder, shared=True):
        (folder / "part").touch()
    with pytest.raises(EdgepureError, match="another run is at work"):
        work_folder(folder).__enter__()
    remove_work_folder(folder)
    assert (folder / "part").exists()
    other.communicate("")
    remove_work_folder(folder)
    assert not folder.exists()


def test_who_waited_holds_what_lies_there_now(tmp_path: Path) -> None:
    """As after the exchange of a bundle: the folder that was waited for has another name."""
    place, old, new = (tmp_path / name for name in ("place", "old", "new"))
    place.mkdir()
    new.mkdir()
    held, done = threading.Event(), threading.Event()

    def wait() -> None:
        with locked(place):
            held.set()
            done.wait(30)

    waiting = threading.Thread(target=wait)
    with locked(place):
        waiting.start()
        assert not held.wait(0.2)
        place.rename(old)
        new.rename(place)
    assert held.wait(30)
    with locked(old, busy="old"):
        pass
    with pytest.raises(EdgepureError, match="new"):
        locked(place, busy="new").__enter__()
    done.set()
    waiting.join()


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        locked(tmp_path / "nothing").__enter__()
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        work_folder(tmp_path / "file").__enter__()


def test_without_locks_everything_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    def none(*arguments: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", none)
    with work_folder(tmp_path / "work"), work_folder(tmp_path / "work"):
        pass
    remove_work_folder(tmp_path / "work")
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("inside", ["", "engines", "new/folder"])
def test_a_bundle_holds_no_partial_results(tiny_bundle: Path, inside: str) -> None:
    before = sorted(tiny_bundle.rglob("*"))
    with pytest.raises(ConfigError, match=r"lies inside a bundle, .*--work"), work_folder(tiny_bundle / inside):
        pass
    assert sorted(tiny_bundle.rglob("*")) == before
