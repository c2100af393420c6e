"""Files that a command is going to write: their places are checked before the work, and never those of inputs."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from ..bundle.manifest import MANIFEST_FILE
from ..errors import ConfigError, EdgepureError


def check_output(path: Path | None, option: str, inputs: Iterable[object] = ()) -> None:
    """Refuse to write where something is that the command reads, or where only a bundle's own files may be.

    Args:
        path: the file or folder that will be written; None: none.
        option: which names it.
        inputs: what the command reads, as it was given: files, folders, ``FILE.npz:NAME``, None.

    Raises:
        ConfigError: it is an input, or lies in a bundle.
    """
    if path is None:
        return
    place = path.resolve()
    for given in inputs:
        file = Path(re.sub(r"(\.npz):\w+$", r"\1", str(given)))
        same = file.is_file() and path.is_file() and file.samefile(path)  # by whatever links
        if given is not None and (same or file.resolve() == place):
            raise ConfigError(
                f"{option} {path} is an input and would be overwritten; choose another place", code="E-output-is-input"
            )
    for folder in (place, *place.parents):
        if (folder / MANIFEST_FILE).is_file():
            raise ConfigError(
                f"{option} {path} lies in the bundle {folder}, which holds its own files only; choose another place",
                code="E-output-in-bundle",
            )


def prepare_file(path: Path | None, option: str, inputs: Iterable[object] = ()) -> None:
    """Make the folder of a file that long work ends with, so that nobody learns at the end that it cannot be written.

    Raises:
        ConfigError: the path names a folder, an input, or a place in a bundle.
        EdgepureError: its folder cannot be made or written to.
    """
    if path is None:
        return
    if path.is_dir():
        raise ConfigError(f"{option} {path} is a folder; give the name of a file", code="E-output-place")
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
