"""Folders that are made or replaced whole or not at all; what a crash cut short is healed by whoever comes next.

A folder is built beside its target (hidden, ``.<name>.<random>.tmp``), flushed to the disk and renamed. Where something
lies already that takes two renames: the old folder to ``.<name>.<random>.old``, the new one to the place. A crash
between the two leaves no folder at the place, but beside it the old one and the new one, which is complete: so `heal`,
called by every reader and writer that finds nothing at a place, ends what was begun. It may meet the writer alive;
then one of the two does the rename, and both are content.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from os import PathLike
from pathlib import Path

from ..errors import EdgepureError
from .atomic import explained, keep_mode, sync_folder

#: An unfinished folder that nobody has touched for a week is nobody's any more.
_STALE_SECONDS = 7 * 24 * 3600


def real_path(path: str | PathLike[str]) -> Path:
    """Absolute and without symlinks; one that leads round in a circle stays, for whoever opens it to refuse.

    (`Path.resolve` raises a RuntimeError there, before Python 3.13.)
    """
    return Path(os.path.realpath(path))


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
    final = real_path(target)
    heal(final)
    _sweep(final)
    _check_replaceable(final, overwrite, marker)
    temporary = _sibling(final, secrets.token_hex(6), "tmp")
    missing = [folder for folder in final.parents if not folder.exists()]
    with explained(final, temporary):
        try:
            temporary.mkdir(parents=True)
            yield temporary
            _sync_tree(temporary)
            _check_replaceable(final, overwrite, marker)  # something may have appeared in the meantime
            keep_mode(final, temporary)
            _keep_hidden(final, temporary)
            _swap(temporary, final)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            for folder in missing:
                with suppress(OSError):
                    folder.rmdir()
            raise
    sync_folder(final.parent)


def heal(target: Path) -> None:
    """End a replacement of ``target`` that a crash cut short; nothing happens without one, or without permission."""
    for old in _siblings(target, "old"):
        for whole in (old.with_suffix(".tmp"), old):
            if not os.path.lexists(target):
                with suppress(OSError):  # somebody else was faster, or it is not there
                    os.rename(whole, target)
        if target.exists():
            shutil.rmtree(old, ignore_errors=True)


def link_or_copy(source: str | PathLike[str], target: str | PathLike[str]) -> None:
    """A second name for a file, or a copy on file systems without hard links. A symlink stays one."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)


def _sibling(target: Path, mark: str, kind: str) -> Path:
    return target.with_name(f".{_short(target.name)}.{mark}.{kind}")


def _siblings(target: Path, kind: str) -> list[Path]:
    """The hidden folders of ours beside ``target``."""
    name = re.compile(rf"\.{re.escape(_short(target.name))}\.[0-9a-f]{{12}}\.{kind}")
    try:
        return sorted(path for path in target.parent.iterdir() if name.fullmatch(path.name) and path.is_dir())
    except OSError:  # no such folder, or it may not be listed
        return []


def _short(name: str) -> str:
    """The name, or what stands for it where ours would become too long for a file system (255 bytes)."""
    return name if len(os.fsencode(name)) <= 200 else hashlib.sha256(os.fsencode(name)).hexdigest()


def _sweep(target: Path) -> None:
    """Remove what builds of ``target`` that were killed long ago have left."""
    for temporary in _siblings(target, "tmp"):
        with suppress(OSError):
            if time.time() - temporary.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(temporary, ignore_errors=True)


def _swap(new: Path, target: Path) -> None:
    """Rename ``new`` to ``target``; what lies there is put back if that fails."""
    old = new.with_suffix(".old")
    if os.path.lexists(target):
        os.rename(target, old)
    try:
        os.rename(new, target)
    except BaseException as error:
        healed = isinstance(error, FileNotFoundError) and not new.exists() and target.exists()
        if not healed:
            with suppress(OSError):  # nothing was there
                os.rename(old, target)
            raise
    shutil.rmtree(old, ignore_errors=True)


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


def _keep_hidden(old: Path, new: Path) -> None:
    """Take over what is hidden in a directory, unfinished files of our own aside."""
    for path in old.iterdir() if old.is_dir() else ():
        target = new / path.name
        if not path.name.startswith(".") or path.name.endswith(".tmp") or os.path.lexists(target):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.copytree(path, target, symlinks=True, copy_function=link_or_copy)
        else:
            link_or_copy(path, target)


def _sync_tree(folder: Path) -> None:
    for root, _, files in os.walk(folder):
        for name in files:
            path = os.path.join(root, name)
            if not os.path.islink(path):
                with open(path, "rb") as file:
                    os.fsync(file.fileno())
        sync_folder(Path(root))
