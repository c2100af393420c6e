"""Finished parts of long work, kept in a folder: an interrupted run goes on where it was.

Everything that a part depends on is its key: the graphs and weights in use, what runs them and its version, data,
settings, the revision of an attack. A file is named by the digest of that key, so what depends on something else is
never taken up, and parts of several runs may lie side by side. Files appear whole or not at all, so a run may be killed
at any moment, and the disk may be full.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

from numpy.typing import NDArray

from edgepure.bundle.manifest import Manifest
from edgepure.bundle.names import MANIFEST_FILE
from edgepure.errors import ConfigError, EdgepureError
from edgepure.files.atomic import write_npz, write_text
from edgepure.files.folders import real_path
from edgepure.files.locks import locked
from edgepure.files.npz import ArrayError, read_all

from .digest import digest

Arrays = dict[str, NDArray[Any]]
#: Counted up when what is kept means something else.
FORMAT = 1
#: Folder inside a work folder for files that only one run needs, removed when it begins and when it ends.
_SCRATCH = ".edgepure-scratch"
#: A temporary file that is older was left by a run that was killed.
_STALE_SECONDS = 3600.0


def bundle_key(manifest: Manifest, precision: str = "fp32") -> str:
    """What results depend on: graphs, weights, schedule and image of a precision. Hexadecimal.

    Not the bundle's presets or cards, nor its other precisions.
    """
    graphs = manifest.graphs_in(precision)
    folders = {PurePosixPath(entry.file).parent for entry in graphs.values()}
    used = {entry.file for entry in graphs.values()}
    files = {
        name: entry.sha256
        for name, entry in manifest.files.items()
        if name in used or (name.endswith((".bin", ".data")) and PurePosixPath(name).parent in folders)
    }
    return digest(
        {
            "files": files,
            "graphs": {name: entry.model_dump(mode="json") for name, entry in graphs.items()},
            "schedule": manifest.schedule.model_dump(mode="json"),
            "image": manifest.image.model_dump(mode="json"),
            "precision": precision,
        }
    )


def former_bundle_key(manifest: Manifest, precision: str = "fp32") -> str:
    """What cards of format 1 have in its place: all graphs and weights of the bundle, whatever their precision."""
    return digest(
        {
            "files": {n: f.sha256 for n, f in manifest.files.items() if n.endswith((".onnx", ".bin", ".data"))},
            "graphs": {n: e.model_dump(mode="json") for n, e in manifest.graphs_in(precision).items()},
            "schedule": manifest.schedule.model_dump(mode="json"),
            "precision": precision,
        }
    )


class Work:
    """Parts by what they depend on.

    Args:
        folder: where they are kept; None: nothing is kept beyond this object, and of that only what is `put`.
        depends: what all parts depend on, as plain data.
    """

    def __init__(self, folder: Path | None, depends: Mapping[str, Any]) -> None:
        self.folder, self._depends = folder, {**depends, "format": FORMAT}
        self._memory: dict[str, Arrays] = {}

    def depending(self, more: Mapping[str, Any]) -> Work:
        """The same folder, for parts that depend on ``more`` too."""
        other = Work(self.folder, {**self._depends, **more})
        other._memory = self._memory
        return other

    def get(self, what: Mapping[str, Any]) -> Arrays | None:
        """The arrays of a part; None if it has not been done, or cannot be read."""
        path = self._path(what, "npz")
        if path is None:
            return self._memory.get(self._name(what))
        try:
            return read_all(path) if path.exists() else None
        except ArrayError:
            return None

    def put(self, what: Mapping[str, Any], arrays: Arrays) -> None:
        """Keep a part, in the place of what was kept of it before."""
        path = self._path(what, "npz")
        if path is None:
            self._memory[self._name(what)] = arrays
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        write_npz(path, arrays)

    def part(self, what: Mapping[str, Any], make: Callable[[], Arrays]) -> Arrays:
        """The arrays of a part: those that are kept, or made now and kept.

        Several runs that share the folder all get the same: what one of them kept first.
        """
        found, path = self.get(what), self._path(what, "npz")
        if found is not None:
            return found
        found = make()
        if path is None:
            return found
        path.parent.mkdir(parents=True, exist_ok=True)
        own = path.with_name(f".{secrets.token_hex(8)}.npz.tmp")
        try:
            write_npz(own, found)
            try:
                os.link(own, path)  # unlike a rename it fails where something lies
            except OSError:  # there is one now, perhaps a damaged one; or the file system has no links
                kept = self.get(what)
                if kept is not None:
                    return kept
                os.replace(own, path)
        finally:
            own.unlink(missing_ok=True)
        return found

    def recall(self, what: Mapping[str, Any]) -> Any:
        """Plain data that `remember` kept; None if there are none, or none that can be read."""
        path = self._path(what, "json")
        try:
            return None if path is None else json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return None

    def remember(self, what: Mapping[str, Any], value: Any) -> None:
        """Keep plain data, in the place of what was kept of it before."""
        path = self._path(what, "json")
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, json.dumps(value, indent=1) + "\n")

    def scratch(self, name: str) -> Path:
        """A new, empty folder for files that only this run needs. Needs a folder that this run holds alone."""
        assert self.folder is not None
        place = self.folder / _SCRATCH / f"{name}-{secrets.token_hex(4)}"
        place.mkdir(parents=True)
        return place

    def _path(self, what: Mapping[str, Any], suffix: str) -> Path | None:
        return None if self.folder is None else self.folder / f"{self._name(what)}.{suffix}"

    def _name(self, what: Mapping[str, Any]) -> str:
        return digest({**self._depends, **what})[:32]


@contextmanager
def work_folder(folder: Path, *, shared: bool = False) -> Iterator[None]:
    """Make a folder for partial results, and keep other runs out of it (``shared``: those that do not share it).

    What a killed run left half-written is removed; whole parts stay.

    Raises:
        ConfigError: it lies inside a bundle.
        EdgepureError: another run is at work there.
    """
    place = real_path(folder)
    if any((outer / MANIFEST_FILE).is_file() for outer in (place, *place.parents)):
        raise ConfigError(
            f"the folder {folder} lies inside a bundle, which may only hold its own files; name another one (--work)",
            code="E-work-place",
        )
    busy = f"another run is at work in the folder {folder}; wait until it has ended, or name another folder (--work)"
    with locked(folder, shared=shared, busy=busy, make=lambda: folder.mkdir(parents=True, exist_ok=True)):
        _sweep(folder, alone=not shared)
        try:
            yield
        finally:
            if not shared:
                shutil.rmtree(folder / _SCRATCH, ignore_errors=True)
                with suppress(OSError):
                    folder.rmdir()  # nothing came of it


@contextmanager
def open_work(folder: Path | None, depends: Mapping[str, Any], *, shared: bool = False) -> Iterator[Work]:
    """A `Work` in a folder that is held meanwhile; with None nothing is kept. Raises as `work_folder` does."""
    if folder is None:
        yield Work(None, depends)
        return
    with work_folder(folder, shared=shared):
        yield Work(folder, depends)


def remove_work_folder(folder: Path) -> None:
    """Remove such a folder, unless another run is at work there: it is that one's now."""
    with suppress(EdgepureError, FileNotFoundError), locked(folder, busy="it is in use"):
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(folder: Path, *, alone: bool) -> None:
    """Remove what killed runs have left: nobody else's files, and no whole part."""
    if alone:
        shutil.rmtree(folder / _SCRATCH, ignore_errors=True)
    for path in folder.glob(".*.tmp"):
        with suppress(OSError):
            if alone or time.time() - path.stat().st_mtime > _STALE_SECONDS:
                path.unlink()
