"""Score norms in numbers: distributions, how well they separate, and the reference sample of the monitor."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, SupportsFloat

import numpy as np
from numpy.typing import NDArray

from edgepure.bundle.calibration import MAX_SAMPLE, ScoreNorms, Separation
from edgepure.errors import ConfigError

Norms = NDArray[np.float64]

#: Shares of the images at which the distribution is recorded.
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
#: Standard normal quantile of a two-sided 95 % interval.
Z95 = 1.959963984540054


def distribution(norms: Norms) -> ScoreNorms:
    """Mean, spread, range and quantiles of score norms ``[N]``, N >= 2.

    Raises:
        ConfigError: fewer than two.
    """
    if len(norms) < 2:
        raise ConfigError(f"need the score norms of at least 2 images, got {len(norms)}", code="E-norms-few")
    return ScoreNorms(
        images=len(norms),
        mean=rounded(norms.mean()),
        std=rounded(norms.std(ddof=1)),
        min=rounded(norms.min()),
        max=rounded(norms.max()),
        quantiles={f"{q:g}": rounded(np.quantile(norms, q)) for q in QUANTILES},
    )


def reference_sample(norms: Norms, seed: int = 0) -> tuple[float, ...]:
    """At most `MAX_SAMPLE` of the norms, ascending. Drawn at random and not evenly, so that p-values stay exact."""
    if len(norms) > MAX_SAMPLE:
        norms = np.random.default_rng(seed).choice(norms, MAX_SAMPLE, replace=False)
    return tuple(sorted(rounded(n) for n in norms))


def separation(clean: Norms, other: Norms, against: Literal["attacked", "random signs"]) -> Separation:
    """How well the norms ``[M]`` of other images stand out from clean ones ``[N]``."""
    value = auroc(clean, other)
    low, high = auroc_interval(value, len(clean), len(other))
    spread = float(clean.std(ddof=1))
    difference = float(other.mean() - clean.mean()) / spread if spread > 0.0 else 0.0
    return Separation(
        against=against,
        norms=distribution(other),
        auroc=rounded(value),
        low=rounded(low),
        high=rounded(high),
        difference=rounded(difference),
    )


def auroc(clean: Norms, other: Norms) -> float:
    """Area under the ROC curve: the chance that an image of ``other`` has the larger norm, ties counted half."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(*_labelled(clean, other)))


def auroc_interval(value: float, clean: int, other: int) -> tuple[float, float]:
    """95 % interval of an AUROC measured on ``clean`` and ``other`` images.

    Newcombe 2006, part 2, method 5: the Hanley-McNeil variance as a score interval. It does not shrink to a point at 0
    or 1, as a Wald interval or a bootstrap does.
    """
    half = 0.5 * (clean + other) - 1.0

    def distance(theta: float) -> float:
        variance = theta * (1.0 - theta) * (1.0 + half * ((1.0 - theta) / (2.0 - theta) + theta / (1.0 + theta)))
        return abs(value - theta) - Z95 * math.sqrt(variance / (clean * other))

    # The distance is positive at 0 and 1 and falls towards ``value``.
    return _root(distance, 0.0, value), _root(distance, 1.0, value)


def _root(distance: Callable[[float], float], outside: float, inside: float) -> float:
    """Bisect between a point outside of the interval and one inside."""
    if distance(outside) <= 0.0:
        return outside
    for _ in range(60):
        middle = 0.5 * (outside + inside)
        if distance(middle) > 0.0:
            outside = middle
        else:
            inside = middle
    return inside


def roc_curve(clean: Norms, other: Norms) -> tuple[Norms, Norms]:
    """False- and true-positive rates, ascending from (0, 0) to (1, 1), of the rule "norm at least c" for every c."""
    from sklearn.metrics import roc_curve as curve

    false, true, _ = curve(*_labelled(clean, other), drop_intermediate=False)
    return false, true


def rank_correlation(one: Norms, two: Norms) -> float:
    """Spearman's rank correlation, in -1..1; 0 if one of them is constant."""
    if np.ptp(one) == 0.0 or np.ptp(two) == 0.0:
        return 0.0
    from scipy.stats import spearmanr

    return float(spearmanr(one, two).statistic)


def _labelled(clean: Norms, other: Norms) -> tuple[NDArray[np.bool_], Norms]:
    """Which norms are those of ``other``, and all norms."""
    return np.repeat([False, True], [len(clean), len(other)]), np.concatenate([clean, other])


def rounded(value: SupportsFloat) -> float:
    """Six significant digits: more is noise, and makes the manifest long."""
    return float(f"{float(value):.6g}")
