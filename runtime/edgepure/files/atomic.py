"""Files that are written whole or not at all.

Everything is written under a temporary name beside its target (hidden, ``.<name>.<random>.tmp``), flushed to the disk
and then renamed. After any failure, a full disk and Ctrl-C included, the temporary is gone and what was there before is
untouched. A crash of the machine can at most leave a temporary behind; readers ignore hidden files. `folders` does the
same for whole folders.
"""

from __future__ import annotations

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

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_REASONS = {
    errno.ENOENT: ("its folder does not exist; make the folder first", "E-output-no-folder"),
    errno.EISDIR: ("it is a directory; choose another name", "E-output-directory"),
    errno.ENOTDIR: ("a part of its path is a file; choose another place", "E-output-path"),
    errno.EEXIST: ("a part of its path is a file; choose another place", "E-output-path"),
    errno.EACCES: ("permission denied; write elsewhere, or change the permissions", "E-output-permission"),
    errno.EPERM: ("permission denied; write elsewhere, or change the permissions", "E-output-permission"),
    errno.EROFS: ("the file system is read-only; write elsewhere", "E-output-read-only"),
    errno.EXDEV: (
        "it lies in a layer of a container's image, where a folder cannot be replaced; copy it to a volume",
        "E-output-layer",
    ),
    errno.EBUSY: ("it is a mounted folder, which cannot be replaced; mount the folder above it", "E-output-mounted"),
}


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
    temporary = target.with_name(f".{target.name[:48]}.{secrets.token_hex(6)}.tmp")
    with explained(target, temporary, expected_bytes):
        try:
            with open(temporary, "xb") as file:
                yield file
                file.flush()
                keep_mode(target, temporary)
                os.fsync(file.fileno())
            os.replace(temporary, target)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
    sync_folder(target.parent)


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


# ---- what files and folders share ------------------------------------------------------------------------------------


def keep_mode(old: Path, new: Path) -> None:
    """What takes the place of something can be read by whom that could be read by."""
    with suppress(OSError):  # nothing was there
        shutil.copymode(old, new)


def sync_folder(folder: Path) -> None:
    """Make a rename durable. Not every system can; then the rename is still atomic."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def explained(target: Path, temporary: Path, expected_bytes: int | None = None) -> Iterator[None]:
    """Turn the ways in which writing fails into sentences; other errors are not ours to explain."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            known = [] if expected_bytes is None else [f"need about {_size(expected_bytes)}"]
            with suppress(OSError):
                known.append(f"{_size(shutil.disk_usage(target.parent).free)} free")
            words = ", ".join(known)
            raise EdgepureError(
                f"no space left on the disk of {target.parent} while writing {target.name}"
                f"{f' ({words})' if words else ''}; nothing was written: free some space, or write elsewhere",
                code="E-disk-full",
            ) from error
        named = {Path(name) for name in (error.filename, error.filename2) if isinstance(name, str | PathLike)}
        if named and named.isdisjoint({target, temporary, *target.parents}):
            raise  # the block read or wrote something else
        other = (f"{error.strerror}; choose another name or place", "E-output-write") if named else None
        known_reason = _REASONS.get(error.errno or 0, other)
        if known_reason is None:
            raise
        reason, code = known_reason
        raise EdgepureError(f"cannot write {target}: {reason}; nothing was written", code=code) from error


def _size(count: int) -> str:
    """Bytes in decimal units, as disks are sold and as `df -H` prints them."""
    power = max((p for p in range(1, 5) if count >= 1000**p), default=0)
    return f"{count} bytes" if power == 0 else f"{count / 1000**power:.1f} {'KMGT'[power - 1]}B"
