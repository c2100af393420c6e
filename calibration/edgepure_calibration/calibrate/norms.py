"""Score norms image by image, kept as they come: an interrupted measurement goes on where it was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic

import numpy as np

from edgepure import Purifier, SeededNoise
from edgepure.methods import EpsSpec
from edgepure.types import Float32

from ..progress import Meter
from ..work import Work
from .statistics import Norms

#: Norms are written at most this often, and whenever a measurement ends or is interrupted.
SAVE_SECONDS = 1.0


@dataclass(frozen=True)
class ImageSet:
    """Images ``[N, C, H, W]`` in [0, 1] with what they are called where norms are kept, and the seed of their noise:
    image i always gets the noise i of it."""

    name: str
    images: Float32
    seed: int


class NormTable:
    """The norms ``[N]`` of one probe on one image set; NaN where they are not measured yet.

    What is kept can be of fewer images, or of more.
    """

    def __init__(self, work: Work, images: ImageSet, probe: EpsSpec, count: int) -> None:
        self._work = work
        self._what = {
            "what": "score norms",
            "images": images.name,
            "seed": images.seed,
            "probe": [list(probe.visited), probe.perturb, probe.label],
        }
        self._every = np.full(count, np.nan)
        kept = (work.get(self._what) or {}).get("norms")
        if kept is not None and kept.dtype == np.float64 and kept.ndim == 1:
            self._every = np.concatenate([kept, self._every[len(kept) :]])
        self.norms: Norms = self._every[:count]
        self._changed, self._saved = False, monotonic()

    def set(self, start: int, norms: Norms) -> None:
        """Put in the norms of some images, and keep them unless that was done a moment ago."""
        self.norms[start : start + len(norms)] = norms
        self._changed = True
        if monotonic() - self._saved >= SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Keep what has been put in."""
        if self._changed:
            self._work.put(self._what, {"norms": self._every})
            self._changed, self._saved = False, monotonic()


def measure_norms(
    purifier: Purifier,
    work: Work,
    images: ImageSet,
    most: int | None,
    probes: Sequence[EpsSpec],
    meter: Meter,
    words: str,
) -> list[Norms]:
    """The score norms of each probe on the first ``most`` images of a set (None: on all); those that are kept are not
    measured again. ``meter`` counts UNet calls."""
    some = images.images[:most]
    tables = [NormTable(work, images, probe, len(some)) for probe in probes]
    noise, size = SeededNoise(images.seed), max(16, purifier.slots)
    try:
        for start in range(0, len(some), size):
            batch = some[start : start + size]
            for probe, table in zip(probes, tables, strict=True):
                calls = len(batch) * probe.unet_calls
                if not np.isnan(table.norms[start : start + len(batch)]).any():
                    meter.known(calls, words)
                    continue
                positions = range(start, start + len(batch))
                table.set(start, purifier.score_norms(batch, probe, noise, ids=positions))
                meter.add(calls, words)
    finally:
        for table in tables:
            table.save()
    return [table.norms for table in tables]
