"""Confidence intervals of counted shares. Exact, and without SciPy: the runtime has to stay light."""

from __future__ import annotations

import math
from collections.abc import Callable

from .errors import ConfigError


def clopper_pearson(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """The exact (Clopper-Pearson 1934) confidence interval of a binomial share.

    Args:
        successes: how often it happened, 0 to ``trials``.
        trials: how often it could have happened, at least 1.
        confidence: two-sided coverage in (0, 1); each side errs with at most half of the rest.

    Returns:
        ``(low, high)`` in [0, 1]. For a one-sided bound at 95 %, ask for ``confidence=0.9`` and take that side.

    Raises:
        ConfigError: the counts or the confidence are out of range.
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ConfigError(f"{successes} of {trials} is not a share: expected 0 <= successes <= trials and trials >= 1")
    if not 0.0 < confidence < 1.0:
        raise ConfigError(f"confidence {confidence} must be between 0 and 1, for example 0.95")
    tail = (1.0 - confidence) / 2.0
    low = 0.0 if successes == 0 else _solve(lambda p: 1.0 - _cdf(successes - 1, trials, p) - tail)
    high = 1.0 if successes == trials else _solve(lambda p: tail - _cdf(successes, trials, p))
    return low, high


def _cdf(k: int, n: int, p: float) -> float:
    """P(X <= k) for X ~ Binomial(n, p), 0 < p < 1: the regularized incomplete beta function of 1 - p."""
    return _beta(n - k, k + 1, 1.0 - p)


def _beta(a: float, b: float, x: float) -> float:
    """The regularized incomplete beta function, by Lentz's continued fraction (Numerical Recipes, 6.4)."""
    if x > (a + 1.0) / (a + b + 2.0):
        return 1.0 - _beta(b, a, 1.0 - x)
    if x <= 0.0:
        return 0.0
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)) / a
    tiny, c, d = 1e-300, 1.0, 1.0 / (1.0 - (a + b) * x / (a + 1.0) or 1e-300)
    result = d
    for m in range(1, 10_000):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1.0 / (1.0 + term * d or tiny)
            c = 1.0 + term / c or tiny
            result *= c * d
        if abs(c * d - 1.0) < 1e-15:
            break
    return min(1.0, front * result)


def _solve(increasing: Callable[[float], float]) -> float:
    """The root in (0, 1) of an increasing function, by bisection to the last bit that matters."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2.0
        if increasing(middle) < 0.0:
            low = middle
        else:
            high = middle
    return (low + high) / 2.0
