"""Paired comparisons on the same images: exact p-values, effect sizes with intervals, correction for many tests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgepure.intervals import clopper_pearson


@dataclass(frozen=True)
class Paired:
    """One system against another on the same images.

    Attributes:
        images: how many.
        wins, losses: images that only the first, only the second one reads right.
        difference: share of right answers of the first less that of the second.
        low, high: 95 % interval of the difference, exact given the number of images on which they differ.
        p: of McNemar's exact test, two-sided: a fair coin would split the differing images at least as unevenly.
    """

    images: int
    wins: int
    losses: int
    difference: float
    low: float
    high: float
    p: float

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {k: round(v, 6) if isinstance(v, float) else v for k, v in asdict(self).items()}

    def __str__(self) -> str:
        return (
            f"{100 * self.difference:+.1f} points ({100 * self.low:+.1f} to {100 * self.high:+.1f}), "
            f"{self.wins}:{self.losses} of {self.images}, p = {self.p:.2g}"
        )


def paired(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> Paired:
    """Compare two lists [N] of right and wrong decisions of the same images."""
    wins, losses, count = int((first & ~second).sum()), int((~first & second).sum()), len(first)
    differing = wins + losses
    if differing == 0:
        return Paired(count, 0, 0, 0.0, 0.0, 0.0, 1.0)
    low, high = ((2 * share - 1) * differing / count for share in clopper_pearson(wins, differing))
    return Paired(count, wins, losses, (wins - losses) / count, low, high, sign_test(wins, losses))


def sign_test(wins: int, losses: int) -> float:
    """Two-sided exact p-value of `wins` heads in `wins + losses` throws of a fair coin."""
    count = wins + losses
    tail = sum(math.comb(count, k) for k in range(min(wins, losses) + 1))
    return min(1.0, float(2 * tail / int(2**count)))


def holm(values: Sequence[float]) -> list[float]:
    """P-values corrected for their number (Holm 1979), in the given order."""
    order = np.argsort(values)
    corrected, highest = [0.0] * len(values), 0.0
    for rank, at in enumerate(order):
        highest = max(highest, min(1.0, (len(values) - rank) * values[at]))
        corrected[at] = highest
    return corrected
