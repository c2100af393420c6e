"""Upper bounds of what is counted over images, where one image counts for any part of the whole.

A bound is the quantile of the mean under random weights of the images (Dirichlet, all parameters 1: Rubin 1981), with
one image more among them that says the worst (Gaffke 2005; Learned-Miller and Thomas 2020). Where every image says 0 or
1 it is the bound of Clopper and Pearson; where images say something between, it follows how far they scatter; and it
does not shrink to nothing where nothing was seen, as a bootstrap does. ``benchmarks/stated_rates.py`` simulates it.
"""

from __future__ import annotations

from collections.abc import Callable
from math import exp, lgamma

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
#: Something in terms of the weights of the images ``[N]``, of any sum: a mean, or a metric of all images together.
Metric = Callable[[Floats], float]

#: Of the weights; equal values have equal bounds. One less than a round number, so that quantiles fall on a draw.
DRAWS, SEED = 999, 20240301


def mean_high(values: NDArray[np.generic], most: float = 1.0, confidence: float = 0.95) -> float:
    """One-sided upper bound of a mean over images.

    Args:
        values: what each image says ``[N]``, or says with each noise ``[N, noises]``: the noises of one image tell of
            that image and not of others, so its mean is taken.
        most: what an image can say at most.
        confidence: with which the bound is not too low.
    """
    own = np.asarray(values, np.float64).reshape(len(values), -1).mean(axis=1)
    distinct, counts = np.unique(np.round(own, 12), return_counts=True)
    random, draws = np.random.default_rng(SEED), 10 * DRAWS + 9
    means = np.empty(draws)
    step = max(1, (1 << 22) // len(distinct))
    for start in range(0, draws, step):
        weights = random.standard_gamma(counts, (min(step, draws - start), len(distinct)))
        means[start : start + step] = weights @ distinct / weights.sum(axis=1)
    return _quantile(means, len(own), most, confidence)


def metric_high(metric: Metric, count: int, most: float = 1.0, confidence: float = 0.95) -> float:
    """The same of a metric of ``count`` images that is no mean over them; ``most``: its largest value."""
    random = np.random.default_rng(SEED)
    return _quantile(
        np.array([metric(random.standard_exponential(count)) for _ in range(DRAWS)]), count, most, confidence
    )


def metric_interval(metric: Metric, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Two-sided interval of a metric in [0, 1]."""
    each = (1.0 + confidence) / 2.0
    low = -metric_high(lambda weights: -metric(weights), count, 0.0, each)
    return max(0.0, low), min(1.0, metric_high(metric, count, 1.0, each))


def as_few(one: int, of: int, other: int, of_other: int) -> float:
    """Fisher's exact test, one-sided: how probable it is to count so few in the first of two groups, if an event is as
    likely in both. ``one`` of ``of``, ``other`` of ``of_other``."""

    def ways(n: int, k: int) -> float:
        return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)

    events, everything = one + other, ways(of + of_other, one + other)
    counts = range(max(0, events - of_other), one + 1)
    return min(1.0, sum(exp(ways(of, k) + ways(of_other, events - k) - everything) for k in counts))


def _quantile(means: Floats, count: int, most: float, confidence: float) -> float:
    """Of draws of a mean of ``count`` images, after one image more, which says ``most``."""
    level = np.random.default_rng(SEED + 1).permutation(np.arange(1, len(means) + 1) / (len(means) + 1))
    share = 1.0 - (1.0 - level) ** (1.0 / count)  # of the weights, that image's: Beta(1, count), each part once
    return float(np.quantile(means + share * (most - means), confidence, method="inverted_cdf"))
