"""Work folders between real processes: one run at a time, nothing left behind, and none held by the dead."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cli_process import environment
from codes import raises_code
from tiny_bundle import make_tiny_bundle

from edgepure_calibration.work import remove_work_folder, work_folder

pytest.importorskip("fcntl", reason="this system has no such locks")

HOLD = """
import sys
from pathlib import Path
from edgepure_calibration.work import work_folder
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
        process = subprocess.Popen(words, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
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
        with raises_code("E-in-use"):
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
    with raises_code("E-in-use"):
        work_folder(folder).__enter__()
    remove_work_folder(folder)
    assert (folder / "part").exists()
    other.communicate("")
    remove_work_folder(folder)
    assert not folder.exists()


def test_a_file_is_no_folder(tmp_path: Path) -> None:
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
def test_a_bundle_holds_no_partial_results(tmp_path: Path, inside: str) -> None:
    tiny_bundle = make_tiny_bundle(tmp_path / "tiny")
    before = sorted(tiny_bundle.rglob("*"))
    with raises_code("E-work-place"), work_folder(tiny_bundle / inside):
        pass
    assert sorted(tiny_bundle.rglob("*")) == before
