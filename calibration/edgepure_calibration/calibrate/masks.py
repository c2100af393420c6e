"""Which threshold of the attention map covers which area of clean images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgepure import Purifier
from edgepure.bundle.calibration import MaskArea, MaskCalibration
from edgepure.methods.presets import MaskSpec

from .statistics import rounded

Float32 = NDArray[np.float32]

#: Areas for which a threshold is recorded.
AREAS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
RULES: tuple[Literal["minmax", "softmax"], ...] = ("minmax", "softmax")
#: Attention maps are kept for at most this many pixels in all.
MOST_PIXELS = 16 << 20
_BATCH = 64


def measure_masks(purifier: Purifier, images: Float32, areas: Sequence[float] = AREAS) -> tuple[MaskCalibration, ...]:
    """The thresholds of both rules that cover ``areas`` of the images ``[N, C, H, W]`` in [0, 1] on average.

    Empty if the bundle has no mask graph.
    """
    if "mask" not in purifier.bundle.manifest.graphs:
        return ()
    count = max(2, MOST_PIXELS // int(np.prod(images.shape[2:])))
    return tuple(_measure(purifier, images[:count], rule, areas) for rule in RULES)


def threshold_for(masks: Sequence[MaskCalibration], rule: str, area: float) -> float:
    """The measured threshold of a rule whose area comes closest to ``area``."""
    areas = next(m.areas for m in masks if m.rule == rule)
    return min(areas, key=lambda found: abs(found.area - area)).threshold


def _measure(
    purifier: Purifier, images: Float32, rule: Literal["minmax", "softmax"], areas: Sequence[float]
) -> MaskCalibration:
    spec = MaskSpec(rule=rule, threshold=0.5)
    maps = np.concatenate(
        [purifier.attention(images[i : i + _BATCH], spec)["attention"] for i in range(0, len(images), _BATCH)]
    ).reshape(len(images), -1)
    return MaskCalibration(
        rule=rule, images=len(maps), areas=tuple(covered(maps, rule, area) for area in sorted(set(areas)))
    )


def covered(maps: Float32, rule: str, area: float) -> MaskArea:
    """The threshold that leaves ``area`` of the pixels of maps ``[N, H * W]`` inside, and what it covers of each."""
    threshold = min(max(rounded(np.quantile(maps, 1.0 - area)), 0.0), 1.0)
    # the comparison of the mask graph
    inside = maps >= np.float32(threshold) if rule == "minmax" else maps > np.float32(threshold)
    shares = inside.mean(axis=1, dtype=np.float64)
    low, high = np.quantile(shares, [0.05, 0.95])
    return MaskArea(threshold=threshold, area=rounded(shares.mean()), low=rounded(low), high=rounded(high))
