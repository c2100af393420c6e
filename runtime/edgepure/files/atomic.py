"""Writing that either happens whole or not at all.

Everything is written under a temporary name beside its target (hidden, ``.<name>.<random>.tmp``), flushed to the disk
and then renamed. After any failure, a full disk and Ctrl-C included, the temporary is gone and what was there before is
untouched. A crash of the machine can at most leave a temporary behind; readers ignore hidden files.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import secrets
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..errors import EdgepureError

_FULL = tuple(getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EFBIG") if hasattr(errno, name))


@contextmanager
def atomic_file(path: str | PathLike[str], *, expected_bytes: int | None = None) -> Iterator[BinaryIO]:
    """Open a binary file for writing; it takes the place of ``path`` when the block ends without an exception.

    Args:
        path: the file to write; its folder must exist.
        expected_bytes: about how much will be written, for the message when the disk is full.

    Raises:
        EdgepureError: no space, no permission, or no such folder; nothing was written.
    """
    target = Path(path)
    temporary = _temporary_name(target)
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            _keep_mode(target, temporary)
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            _raise_explained(error, target, temporary, expected_bytes)
        raise
    _sync_folder(target.parent)


def write_bytes(path: str | PathLike[str], data: bytes) -> None:
    """Write a file atomically. Raises EdgepureError as `atomic_file` does."""
    with atomic_file(path, expected_bytes=len(data)) as file:
        file.write(data)


def write_text(path: str | PathLike[str], text: str) -> None:
    """Write a UTF-8 text file atomically. Raises EdgepureError as `atomic_file` does."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: str | PathLike[str], value: Any) -> None:
    """Write JSON (sorted keys, two spaces of indent, no NaN) atomically. Raises EdgepureError as `atomic_file` does."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def write_npz(path: str | PathLike[str], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays as a compressed ``.npz`` atomically; equal arrays give equal bytes.

    Raises:
        TypeError: an array holds Python objects, which could only be pickled.
        EdgepureError: as `atomic_file`.
    """
    contiguous = {name: np.asarray(array, order="C") for name, array in sorted(arrays.items())}
    for name, array in contiguous.items():
        if array.dtype.hasobject:
            raise TypeError(f"array {name!r} holds Python objects, which could only be pickled; bundles hold numbers")
    total = sum(array.nbytes for array in contiguous.values())
    with atomic_file(path, expected_bytes=total) as file, zipfile.ZipFile(file, "w") as archive:
        for name, array in contiguous.items():
            entry = zipfile.ZipInfo(f"{name}.npy")  # dated 1980, so that equal arrays give equal bytes
            entry.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(entry, "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


@contextmanager
def atomic_directory(
    target: str | PathLike[str], overwrite: bool = False, *, marker: str = "bundle.json"
) -> Iterator[Path]:
    """Build a directory in a temporary sibling; it takes the place of ``target`` when the block ends well.

    Args:
        target: the directory to make. Missing parents are made too.
        overwrite: replace a directory that is already there. Only one that holds ``marker`` is ever replaced, so that
            a mistyped path cannot delete anything else. What is hidden in it (``.git``) is somebody else's and stays.
            An empty directory needs no ``overwrite``.
        marker: name of the file by which a directory of the same kind is known.

    Yields:
        The temporary directory to fill.

    Raises:
        EdgepureError: the target exists and may not be replaced, no space, or no permission; nothing was written.
    """
    final = Path(target).resolve()
    _check_replaceable(final, overwrite, marker)
    temporary = _temporary_name(final)
    made: list[Path] = []
    try:
        _make_parents(final.parent, made)
        temporary.mkdir()
        yield temporary
        _sync_tree(temporary)
        _check_replaceable(final, overwrite, marker)  # something may have appeared in the meantime
        _keep_mode(final, temporary)
        _keep_hidden(final, temporary)
        _swap(temporary, final)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        for folder in reversed(made):
            with suppress(OSError):
                folder.rmdir()
        if isinstance(error, OSError):
            _raise_explained(error, final, temporary, None)
        raise
    _sync_folder(final.parent)


def _temporary_name(target: Path) -> Path:
    return target.with_name(f".{target.name[:48]}.{secrets.token_hex(6)}.tmp")


def _check_replaceable(target: Path, overwrite: bool, marker: str) -> None:
    if not os.path.lexists(target):
        return
    if not target.is_dir():
        raise EdgepureError(
            f"{target} is already there and is not a directory; choose another name", code="E-output-file"
        )
    if not any(target.iterdir()):
        return
    if not overwrite:
        raise EdgepureError(
            f"{target} is already there; choose another name, or ask to overwrite it (overwrite=True, --overwrite)",
            code="E-output-exists",
        )
    if not (target / marker).is_file():
        raise EdgepureError(
            f"{target} is not empty and holds no {marker}, so it is not overwritten; choose another name, or remove it",
            code="E-output-foreign",
        )


def _keep_mode(old: Path, new: Path) -> None:
    """What takes the place of something can be read by whom that could be read by."""
    with suppress(OSError):  # nothing was there
        shutil.copymode(old, new)


def _keep_hidden(old: Path, new: Path) -> None:
    """Take over what is hidden in a directory, unfinished files of our own aside."""
    for path in old.iterdir() if old.is_dir() else ():
        target = new / path.name
        if not path.name.startswith(".") or path.name.endswith(".tmp") or os.path.lexists(target):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.copytree(path, target, symlinks=True, copy_function=_link)
        else:
            _link(path, target)


def _link(source: str | PathLike[str], target: str | PathLike[str]) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:  # a file system without hard links
        shutil.copy2(source, target, follow_symlinks=False)


def _swap(new: Path, target: Path) -> None:
    """Rename ``new`` to ``target``; a directory that is there is put back if that fails."""
    if not target.exists():
        os.rename(new, target)
        return
    if _exchange(new, target):
        shutil.rmtree(new, ignore_errors=True)
        return
    old = _temporary_name(target)
    try:
        os.rename(target, old)
        os.rename(new, target)
    except BaseException:
        if old.exists() and not target.exists():
            os.rename(old, target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Let two paths change places in one step, so that a crash leaves one or the other. False: not possible here."""
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE of renameat2(2)
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError, TypeError):  # not Linux, or an old C library
        return False
    return bool(renameat2(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0)


def _make_parents(folder: Path, made: list[Path]) -> None:
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
        made.append(path)


def _sync_tree(folder: Path) -> None:
    for root, _, files in os.walk(folder):
        for name in files:
            path = os.path.join(root, name)
            if not os.path.islink(path):
                with open(path, "rb") as file:
                    os.fsync(file.fileno())
        _sync_folder(Path(root))


def _sync_folder(folder: Path) -> None:
    """Make a rename durable. Not every system can; then the rename is still atomic."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _raise_explained(error: OSError, target: Path, temporary: Path, expected_bytes: int | None) -> None:
    """Turn the ways in which writing fails into sentences; other errors are not ours to explain."""
    if error.errno in _FULL:
        need = "" if expected_bytes is None else f"need about {_size(expected_bytes)}"
        free = ""
        with suppress(OSError):
            free = f"{_size(shutil.disk_usage(target.parent).free)} free"
        known = ", ".join(part for part in (need, free) if part)
        raise EdgepureError(
            f"no space left on the disk of {target.parent} while writing {target.name}"
            f"{f' ({known})' if known else ''}; nothing was written: free some space, or write elsewhere",
            code="E-disk-full",
        ) from error
    named = {Path(name) for name in (error.filename, error.filename2) if isinstance(name, str | PathLike)}
    if named and named.isdisjoint({target, temporary, *target.parents}):
        return  # the block read or wrote something else
    if isinstance(error, FileNotFoundError):
        reason, code = "its folder does not exist; make the folder first", "E-output-no-folder"
    elif isinstance(error, IsADirectoryError):
        reason, code = "it is a directory; choose another name", "E-output-directory"
    elif isinstance(error, NotADirectoryError | FileExistsError):
        reason, code = "a part of its path is a file; choose another place", "E-output-path"
    elif isinstance(error, PermissionError):
        reason, code = "permission denied; write elsewhere, or change the permissions", "E-output-permission"
    elif error.errno == errno.EROFS:
        reason, code = "the file system is read-only; write elsewhere", "E-output-read-only"
    elif error.errno == errno.EXDEV:
        reason = "it lies in a layer of a container's image, where a folder cannot be replaced; copy it to a volume"
        code = "E-output-layer"
    elif error.errno == errno.EBUSY:
        reason = "it is a mounted folder, which cannot be replaced; mount the folder above it"
        code = "E-output-mounted"
    elif named:
        reason, code = f"{error.strerror}; choose another name or place", "E-output-write"
    else:
        return
    raise EdgepureError(f"cannot write {target}: {reason}; nothing was written", code=code) from error


def _size(count: int) -> str:
    """Bytes in decimal units, as disks are sold and as `df -H` prints them."""
    power = max((p for p in range(1, 5) if count >= 1000**p), default=0)
    return f"{count} bytes" if power == 0 else f"{count / 1000**power:.1f} {'KMGT'[power - 1]}B"
