"""Score norms image by image, kept in a file: an interrupted measurement goes on where it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic

import numpy as np
from numpy.typing import NDArray

from edgepure import Purifier, SeededNoise
from edgepure.bundle.manifest import Manifest
from edgepure.files.atomic import write_npz
from edgepure.files.npz import ArrayError, read_all
from edgepure.methods import EpsSpec

from .statistics import Norms

#: The file is written at most this often, and whenever a measurement ends or is interrupted.
SAVE_SECONDS = 1.0

#: Called with the UNet calls that were just made, or were found done.
OnCalls = Callable[[int], None]


def graphs_key(manifest: Manifest, precision: str) -> str:
    """What the norms depend on besides the images: the step graph, the weights, the schedule. Hexadecimal."""
    graph = manifest.graphs_in(precision)["step"].file
    weights = {name: entry.sha256 for name, entry in manifest.files.items() if name == graph or name.endswith(".bin")}
    parts = {"files": weights, "schedule": manifest.schedule.model_dump(mode="json")}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class NormStore:
    """Norms by image set and probe. Not measured yet: NaN.

    Args:
        path: the ``.npz`` file; None keeps everything in memory. A file that cannot be read is begun anew.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._arrays: dict[str, NDArray[np.float64]] = {}
        self._saved = monotonic()
        if path is not None and path.exists():
            with suppress(ArrayError):
                self._arrays = {
                    name: array
                    for name, array in read_all(path).items()
                    if array.dtype == np.float64 and array.ndim == 1
                }

    def norms(self, images: str, probe: EpsSpec, count: int) -> Norms:
        """The norms ``[count]`` of the first images of a set; writing to the array stores them."""
        key = hashlib.sha256(repr((images, probe.visited, probe.perturb, probe.label)).encode()).hexdigest()[:24]
        array = self._arrays.get(key)
        if array is None or len(array) < count:
            grown = np.full(count, np.nan)
            if array is not None:
                grown[: len(array)] = array
            array = self._arrays[key] = grown
        return array[:count]

    def save(self, *, now: bool = False) -> None:
        """Write the file, unless that was done a moment ago."""
        if self._path is None or (not now and monotonic() - self._saved < SAVE_SECONDS):
            return
        write_npz(self._path, self._arrays)
        self._saved = monotonic()


def measure(
    purifier: Purifier,
    store: NormStore,
    name: str,
    images: NDArray[np.float32],
    probes: Sequence[EpsSpec],
    seed: int,
    on_calls: OnCalls,
) -> list[Norms]:
    """The score norms ``[N]`` of each probe on ``images`` ``[N, C, H, W]`` in [0, 1].

    Args:
        name: of the image set in the store; image i of it always gets the noise i of ``seed``.
        on_calls: called after each batch of each probe.
    """
    tables = [store.norms(name, probe, len(images)) for probe in probes]
    noise, size = SeededNoise(seed), max(16, purifier.slots)
    try:
        for start in range(0, len(images), size):
            batch = images[start : start + size]
            positions = range(start, start + len(batch))
            for probe, table in zip(probes, tables, strict=True):
                part = table[start : start + len(batch)]
                if np.isnan(part).any():
                    part[:] = purifier.score_norms(batch, probe, noise, ids=positions)
                    store.save()
                on_calls(len(batch) * probe.unet_calls)
    finally:
        store.save(now=True)
    return tables
