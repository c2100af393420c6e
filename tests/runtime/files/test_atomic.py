"""Writing happens whole or not at all: full disks, Ctrl-C and wrong places leave what was there before."""

from __future__ import annotations

import builtins
import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from codes import raises_code

from edgepure.errors import EdgepureError
from edgepure.files.atomic import atomic_file, write_bytes, write_json, write_npz, write_text

WRITERS: list[Callable[[Path], None]] = [
    lambda p: write_bytes(p, b"new"),
    lambda p: write_text(p, "new"),
    lambda p: write_json(p, {"new": 1}),
    lambda p: write_npz(p, {"new": np.ones(3)}),
]


class FullDisk:
    """A file whose disk fills up after some bytes."""

    def __init__(self, file: Any, room: int) -> None:
        self._file, self._room = file, room

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        if size > self._room:
            self._file.write(bytes(data)[: self._room])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._room -= size
        return int(self._file.write(data))

    def __enter__(self) -> FullDisk:
        self._file.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._file.__exit__(*exception)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Everything opened for writing afterwards has room for that many bytes."""
    real = builtins.open

    def fill(room: int) -> None:
        def opened(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            handle = real(file, mode, *args, **kwargs)
            return FullDisk(handle, room) if set(mode) & set("wxa") else handle

        monkeypatch.setattr(builtins, "open", opened)

    return fill


def fail(error: BaseException) -> Callable[..., Any]:
    def failing(*args: Any, **kwargs: Any) -> Any:
        raise error

    return failing


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


@pytest.mark.parametrize("write", WRITERS)
def test_writers_write_and_replace(tmp_path: Path, write: Callable[[Path], None]) -> None:
    path = tmp_path / "file"
    write(path)
    first = path.read_bytes()
    path.write_bytes(b"something else")
    write(path)
    assert path.read_bytes() == first
    assert names(tmp_path) == ["file"]


def test_contents(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": "é", "a": [1.5]})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n  "a": [\n    1.5\n  ],\n  "b": "é"\n}\n'
    arrays = {"step/in/x": np.arange(6, dtype=np.float32).reshape(2, 3), "file": np.array(7)}
    write_npz(tmp_path / "a.npz", arrays)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as found:
        assert sorted(found) == sorted(arrays)
        np.testing.assert_array_equal(found["step/in/x"], arrays["step/in/x"])
        assert found["file"] == 7
    write_npz(tmp_path / "b.npz", dict(reversed(arrays.items())))
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_files_have_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write_bytes(tmp_path / "atomic", b"")
    modes = {stat.S_IMODE((tmp_path / n).stat().st_mode) for n in ("plain", "atomic")}
    assert len(modes) == 1


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("room", [0, 2])
def test_full_disk_leaves_the_old_file(
    tmp_path: Path, write: Callable[[Path], None], room: int, full_disk: Callable[[int], None]
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    full_disk(room)
    with raises_code("E-disk-full"):
        write(path)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_full_disk_message_says_how_much_is_needed(tmp_path: Path, full_disk: Callable[[int], None]) -> None:
    full_disk(100)
    with raises_code("E-disk-full") as caught:
        write_bytes(tmp_path / "file", bytes(1_200_000))
    assert "need about 1.2 MB, " in str(caught.value)
    assert names(tmp_path) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "full"), MemoryError()])
@pytest.mark.parametrize("call", ["replace", "fsync"])
@pytest.mark.parametrize("write", WRITERS)
def test_any_failure_leaves_the_old_file(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    write: Callable[[Path], None],
    call: str,
    error: BaseException,
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, call, fail(error))
    with pytest.raises(EdgepureError if isinstance(error, OSError) else type(error)):
        write(path)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_exception_in_the_block_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def half() -> None:
        with atomic_file(path) as file:
            file.write(b"half of the n")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        half()
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_wrong_places_are_explained(tmp_path: Path) -> None:
    with raises_code("E-output-no-folder"):
        write_bytes(tmp_path / "missing" / "file", b"")
    (tmp_path / "folder").mkdir()
    with raises_code("E-output-directory"):
        write_bytes(tmp_path / "folder", b"")
    (tmp_path / "plain").touch()
    with raises_code("E-output-path"):
        write_bytes(tmp_path / "plain" / "file", b"")
    with raises_code("E-output-write"):
        write_bytes(tmp_path / ("x" * 300), b"")
    assert names(tmp_path) == ["folder", "plain"]


def test_denied_permission_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    monkeypatch.setattr(os, "replace", fail(PermissionError(errno.EACCES, "denied", str(path))))
    with raises_code("E-output-permission"):
        write_bytes(path, b"")
    assert names(tmp_path) == []


def test_errors_of_the_block_that_are_about_other_files_pass(tmp_path: Path) -> None:
    def read_another() -> None:
        with atomic_file(tmp_path / "file"):
            (tmp_path / "other").read_bytes()

    with pytest.raises(FileNotFoundError):
        read_another()
    assert names(tmp_path) == []


def test_unserialisable_json_and_objects_write_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a", {"x": float("nan")})
    with pytest.raises(TypeError, match="array 'bad' holds Python objects"):
        write_npz(tmp_path / "b", {"good": np.ones(1), "bad": np.array([{}], dtype=object)})
    assert names(tmp_path) == []


def test_what_is_replaced_keeps_its_permissions(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "old")
    (tmp_path / "file").chmod(0o600)
    write_text(tmp_path / "file", "new")
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o600
