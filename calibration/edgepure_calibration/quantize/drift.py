"""How far the trajectories of a variant are from those of fp32, beside how far new noise leads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgepure.methods.presets import Preset
from edgepure.purify.purifier import Purifier
from edgepure.types import Float32

from .recording import follow, masks_of, planned
from .verdict import Check, check

#: Rows of a trajectory are compared on this many images, or on fewer if they need more memory than this.
DRIFT_IMAGES, DRIFT_BYTES = 16, 128 << 20

Rms = tuple[float, ...]


class Drifts:
    """Root mean square differences after each row, of the plan that most images follow.

    Args:
        purifier: the fp32 bundle.
        images: ``[N, C, H, W]``; some of them are followed.
        seed: of the noise.
    """

    def __init__(self, purifier: Purifier, images: Float32, seed: int) -> None:
        self._purifier, self._images, self._seed = purifier, images, seed
        self._fp32: dict[str, tuple[Float32, Float32]] = {}

    def of(self, variant: Purifier, name: str, preset: Preset) -> tuple[Rms, Rms]:
        """To fp32 with the same noise, and of fp32 with two noises. ``name``: of the preset."""
        images, seed = self._images, self._seed
        group = max(planned(self._purifier, preset, images[: 4 * DRIFT_IMAGES], seed), key=lambda g: _length(g))
        if group.probe:
            return (), ()  # no image of these is purified
        rows = len(group.plan.rows)
        count = min(DRIFT_IMAGES, max(2, DRIFT_BYTES // (12 * rows * images[0].size)), len(group.images))
        chosen = type(group)(group.plan, group.images[:count])
        images = images[: max(chosen.images) + 1]
        masks = masks_of(self._purifier, preset, images, seed)

        def path(purifier: Purifier, seed: int) -> Float32:
            states = np.zeros((rows, *images.shape), np.float32)

            def keep(row: int, numbers: Sequence[int], feeds: Any, after: Float32) -> None:
                states[row, list(numbers)] = after

            follow(purifier, chosen, images, masks, seed, keep)
            return states[:, list(chosen.images)]

        if name not in self._fp32:
            self._fp32[name] = path(self._purifier, seed), path(self._purifier, seed + 1)
        first, second = self._fp32[name]
        return _rms(path(variant, seed) - first), _rms(second - first)


def drift_check(drift: Rms, redraw: Rms, limit: float) -> Check:
    """Whether the last row is off by no more than ``limit`` of what new noise changes."""
    share = drift[-1] / redraw[-1] if redraw[-1] > 0.0 else (0.0 if drift[-1] == 0.0 else math.inf)
    words = f"at its last row the trajectory is off by {drift[-1]:.3g}, {share:.2f} of what new noise changes"
    return check("drift", share, limit, words)


def _length(group: Any) -> tuple[bool, int, int]:
    """Prefer purifications to probes, then the plan that most images follow."""
    return (not group.probe, len(group.images), len(group.plan.rows))


def _rms(difference: Float32) -> Rms:
    axes = tuple(range(1, difference.ndim))
    return tuple(float(v) for v in np.sqrt(np.square(difference, dtype=np.float64).mean(axis=axes)))
