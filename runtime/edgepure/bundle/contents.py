"""What lies in the folder of a bundle, and the hash of a file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from .names import ENGINES_FOLDER

_BUFFER_BYTES = 1 << 20


def found_files(root: Path) -> set[str]:
    """Relative POSIX paths of everything but folders, hidden names and engines/."""
    return {str(name) for name, _ in walk(root, PurePosixPath(), everything=False)}


def walk(root: Path, top: PurePosixPath, everything: bool) -> Iterator[tuple[PurePosixPath, os.DirEntry[str]]]:
    """What lies below a folder but is no folder itself, by its path from ``root``. Symlinks are not followed."""
    folders = [top]
    while folders:
        folder = folders.pop()
        with os.scandir(root / folder) as entries:
            for entry in entries:
                name = folder / entry.name
                if not everything and (entry.name.startswith(".") or str(name) == ENGINES_FOLDER):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(name)
                else:
                    yield name, entry


def hash_file(path: Path | int) -> str:
    """SHA-256 of a file or of an open one, in lower-case hexadecimal."""
    digest = hashlib.sha256()
    buffer = bytearray(_BUFFER_BYTES)
    view = memoryview(buffer)
    with open(path, "rb", buffering=0, closefd=not isinstance(path, int)) as file:
        if isinstance(path, int):
            file.seek(0)
        while count := file.readinto(buffer):
            digest.update(view[:count])
    return digest.hexdigest()
