"""Finished parts of an evaluation, kept in a folder: an interrupted one goes on where it was."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from edgepure.bundle.manifest import Manifest
from edgepure.files.atomic import write_npz
from edgepure.files.npz import ArrayError, read_all

from .protocol import digest

Arrays = dict[str, NDArray[Any]]


def bundle_key(manifest: Manifest, precision: str) -> str:
    """What results depend on: graphs, weights, schedule, precision. Not the bundle's presets or cards. Hexadecimal."""
    files = {n: f.sha256 for n, f in manifest.files.items() if n.endswith((".onnx", ".bin", ".data"))}
    graphs = {n: e.model_dump(mode="json") for n, e in manifest.graphs_in(precision).items()}
    schedule = manifest.schedule.model_dump(mode="json")
    return digest({"files": files, "graphs": graphs, "schedule": schedule, "precision": precision})


class Store:
    """Arrays by what made them. ``folder`` None: nothing is kept. A file that cannot be read is made anew."""

    def __init__(self, folder: Path | None, common: Mapping[str, Any]) -> None:
        self.folder, self._common = folder, dict(common)

    def get(self, what: Mapping[str, Any]) -> Arrays | None:
        """The arrays of a part; None if it has not been done."""
        path = self._path(what)
        if path is None or not path.exists():
            return None
        try:
            return read_all(path)
        except ArrayError:
            return None

    def part(self, what: Mapping[str, Any], make: Callable[[], Arrays]) -> Arrays:
        """The arrays of a part: those that are kept, or made now and kept.

        Several runs that share the folder all get the same: what one of them kept first.
        """
        found, path = self.get(what), self._path(what)
        if found is not None:
            return found
        found = make()
        if path is None:
            return found
        path.parent.mkdir(parents=True, exist_ok=True)
        own = path.with_name(f".{secrets.token_hex(8)}.npz")
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

    def _path(self, what: Mapping[str, Any]) -> Path | None:
        if self.folder is None:
            return None
        return self.folder / f"{digest({**self._common, **what})[:32]}.npz"
