"""Files that a command is going to write: their places are checked before the work, and never those of inputs."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from ..bundle.names import MANIFEST_FILE
from ..errors import ConfigError, EdgepureError
from ..files.folders import real_path


def check_output(path: Path | None, option: str, inputs: Iterable[object] = ()) -> None:
    """Refuse to write where something is that the command reads, or where only a bundle's own files may be.

    Args:
        path: the file or folder that will be written; None: none.
        option: which names it.
        inputs: what the command reads, as it was given: files, folders, ``FILE.npz:NAME``, None.

    Raises:
        ConfigError: it is an input, or lies in a bundle.
    """
    if path is not None:
        check_outputs([path], option, inputs)


def check_outputs(paths: Iterable[Path], option: str, inputs: Iterable[object] = ()) -> None:
    """`check_output` of many files, where each input and each folder is looked at once.

    Raises:
        ConfigError: one is an input, or lies in a bundle.
    """
    # a file may hold thousands of images, each of which names it as its input
    files = [
        Path(name) for name in {re.sub(r"(\.npz):\w+$", r"\1", str(given)) for given in inputs if given is not None}
    ]
    places = {real_path(file) for file in files}
    contents = {_identity(file) for file in files} - {None}
    free: set[Path] = set()
    for path in paths:
        place = real_path(path)
        if place in places or _identity(path) in contents:  # by whatever links
            raise ConfigError(
                f"{option} {path} is an input and would be overwritten; choose another place", code="E-output-is-input"
            )
        for folder in (place, *place.parents):
            if folder in free:
                break
            if (folder / MANIFEST_FILE).is_file():
                raise ConfigError(
                    f"{option} {path} lies in the bundle {folder}, which holds its own files only; choose another "
                    "place",
                    code="E-output-in-bundle",
                )
        free.update(place.parents)


def _identity(path: Path) -> tuple[int, int] | None:
    """What is the same for all names of a file; None where there is no file."""
    if not path.is_file():
        return None
    found = path.stat()
    return found.st_dev, found.st_ino


def prepare_file(path: Path | None, option: str, inputs: Iterable[object] = ()) -> None:
    """Make the folder of a file that long work ends with, so that nobody learns at the end that it cannot be written.

    Raises:
        ConfigError: the path names a folder, an input, or a place in a bundle.
        EdgepureError: its folder cannot be made or written to.
    """
    if path is None:
        return
    if path.is_dir():
        raise ConfigError(f"{option} {path} is a folder; give the name of a file", code="E-output-folder")
    check_output(path, option, inputs)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EdgepureError(
            f"{option} {path}: its folder cannot be made ({error.strerror or error}); choose another place",
            code="E-output-write",
        ) from error
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise EdgepureError(
            f"{option} {path}: its folder cannot be written to; choose another place", code="E-output-write"
        )
