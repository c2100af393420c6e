"""Which files of a folder are images: one rule for everything that takes a folder."""

from __future__ import annotations

import mimetypes
import os
import warnings
from collections.abc import Callable
from pathlib import Path


def image_files(folder: Path, say: Callable[[str], object] = warnings.warn) -> list[Path]:
    """All files of a folder and its sub-folders, in the order of their paths.

    What is hidden is left out, and so is what its name says to be something else (a text, a table); ``say`` is told of
    that. All other files count, whatever they are called: one that is no image is an error when it is read.
    """
    found: list[Path] = []
    others: list[Path] = []
    seen: set[tuple[int, int]] = set()
    for root, folders, files in os.walk(folder, followlinks=True):
        place = os.stat(root)
        if (place.st_dev, place.st_ino) in seen:  # a symlink to a folder above it
            folders.clear()
            continue
        seen.add((place.st_dev, place.st_ino))
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.startswith("."):
                kind, packed = mimetypes.guess_type(name)
                image = packed is None and (kind is None or kind.startswith("image/"))
                (found if image else others).append(Path(root, name))
    if others:
        some = ", ".join(str(path.relative_to(folder)) for path in sorted(others)[:3])
        say(
            f"{folder}: {len(others)} files are no images by their names, and were left out ({some}, ...)"
            if len(others) > 3
            else f"{folder}: left out, no images by their names: {some}"
        )
    return sorted(found)
