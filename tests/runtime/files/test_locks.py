"""Locks: one at a time, nothing left behind, and what was waited for is what lies there now."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from codes import raises_code

from edgepure.files.locks import locked

pytest.importorskip("fcntl", reason="this system has no such locks")


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
    with raises_code("E-in-use"):
        locked(place, busy="new").__enter__()
    done.set()
    waiting.join()


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        locked(tmp_path / "nothing").__enter__()


def test_without_locks_everything_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    def none(*arguments: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", none)
    with locked(tmp_path, busy="nobody holds it"), locked(tmp_path, busy="nobody holds it"):
        pass
