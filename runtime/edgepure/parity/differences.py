"""Numbers that say how far two arrays are apart. All sums are in float64; NaN stays NaN, and NaN passes no bound."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..types import Float32

#: A reference whose root mean square is smaller counts as this large: relative to zero everything would be infinite.
SMALLEST_RMS = 1e-6


@dataclass(frozen=True)
class Difference:
    """Of one array to its reference.

    Attributes:
        max_abs, mean_abs: of the absolute difference.
        relative_l2: L2 norm of the difference over that of the reference.
        cosine: of the angle between the two; 1 if they agree up to a positive factor.
        scale: largest absolute value of the reference.
    """

    max_abs: float
    mean_abs: float
    relative_l2: float
    cosine: float
    scale: float


@dataclass(frozen=True)
class MaskDifference:
    """Of one batch of masks to its reference.

    Attributes:
        iou: intersection over union of all pixels inside; 1 if both are empty.
        pixels: number of pixels that differ.
        of: number of all pixels.
    """

    iou: float
    pixels: int
    of: int


def difference(found: NDArray[np.generic], expected: NDArray[np.generic]) -> Difference:
    """How far ``found`` is from ``expected``: arrays of any equal shape."""
    a, b = found.astype(np.float64).ravel(), expected.astype(np.float64).ravel()
    if not a.size:
        return Difference(0.0, 0.0, 0.0, 1.0, 0.0)
    error = np.abs(a - b)
    norm = float(np.linalg.norm(b))
    return Difference(
        max_abs=float(error.max()),
        mean_abs=float(error.mean()),
        relative_l2=float(np.linalg.norm(error)) / max(norm, SMALLEST_RMS * float(np.sqrt(a.size))),
        cosine=_cosine(a, b),
        scale=float(np.abs(b).max()),
    )


def mask_difference(found: NDArray[np.generic], expected: NDArray[np.generic]) -> MaskDifference:
    """How far a batch of masks (inside is above 0.5) is from its reference of the same shape."""
    mine, theirs = found.astype(np.float64) > 0.5, expected.astype(np.float64) > 0.5
    pixels, union = int((mine != theirs).sum()), int((mine | theirs).sum())
    iou = 1.0 if union == 0 else float((mine & theirs).sum()) / union
    return MaskDifference(iou, pixels, mine.size)


def mask_flips(found: Float32, expected: Float32, attention: Float32, tolerance: float) -> int:
    """Number of mask pixels that differ although their attention is not within rounding of the cut.

    The cut lies between the lowest attention inside the expected mask and the highest outside.

    Args:
        found, expected: ``[B, 1, H, W]`` of 0 and 1.
        attention: ``[B, 1, H, W]``, the map that ``expected`` was cut from.
        tolerance: what counts as rounding, as a fraction of the map's maximum.
    """
    count = 0
    for mine, theirs, map_ in zip(found, expected, attention, strict=True):
        differs = mine != theirs
        if not differs.any():
            continue
        inside, outside = map_[theirs > 0.5], map_[theirs <= 0.5]
        slack = tolerance * float(map_.max())
        lowest = float(inside.min()) if inside.size else np.inf
        highest = float(outside.max()) if outside.size else -np.inf
        near = np.where(theirs > 0.5, map_ - lowest, highest - map_) <= slack
        count += int((differs & ~near).sum())
    return count


def _cosine(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    norms = float(np.linalg.norm(a)) * float(np.linalg.norm(b))
    if norms == 0.0:
        return 1.0 if not (a.any() or b.any()) else 0.0
    return float(np.dot(a, b)) / norms
