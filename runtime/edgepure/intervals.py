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
        raise ConfigError(
            f"{successes} of {trials} is not a share: expected 0 <= successes <= trials and trials >= 1",
            code="E-interval-share",
        )
    if not 0.0 < confidence < 1.0:
        raise ConfigError(
            f"confidence {confidence} must be between 0 and 1, for example 0.95", code="E-interval-confidence"
        )
    tail = (1.0 - confidence) / 2.0
    return lower_bound(successes, trials, tail), 1.0 - lower_bound(trials - successes, trials, tail)


def lower_bound(successes: int, trials: int, alpha: float) -> float:
    """The exact one-sided lower bound of a binomial share; it is too high with probability ``alpha`` at most."""
    if successes == 0:
        return 0.0
    return _solve(lambda p: _at_least(successes, trials, p) - alpha)


def anytime_log_evidence(successes: int, trials: int, share: float, prior: tuple[float, float] = (0.5, 0.5)) -> float:
    """Logarithm of the evidence against a binomial share, which may be looked at after every trial.

    The likelihood of a mixture over that of ``share``: a martingale of mean 1 if ``share`` is true, so that it *ever*
    reaches ``1 / alpha`` with probability ``alpha`` at most (Ville 1939; Robbins 1970). ``prior``: the mixture is this
    Beta distribution, chosen before the first trial.
    """
    failures, (a, b) = trials - successes, prior
    mixture = _log_beta(successes + a, failures + b) - _log_beta(a, b)
    return mixture - successes * math.log(share) - failures * math.log1p(-share)


def enough_evidence(alpha: float) -> float:
    """The logarithm of ``1 / alpha``, which evidence reaches wrongly with probability ``alpha`` at most. No evidence is
    enough for a share of ``alpha`` that is too small for a float."""
    return -math.log(alpha) if alpha > 0.0 else math.inf


def anytime_lower_bound(successes: int, trials: int, alpha: float, prior: tuple[float, float] = (0.5, 0.5)) -> float:
    """A lower bound of a binomial share that holds after every number of trials at once, with probability
    ``1 - alpha``: counting may stop when one likes. ``prior``: as in `anytime_log_evidence`."""
    if successes == 0 or alpha <= 0.0:
        return 0.0
    most = min(successes / trials, 1.0 - 2**-53)
    return most * _solve(lambda x: enough_evidence(alpha) - anytime_log_evidence(successes, trials, x * most, prior))


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def _at_least(k: int, n: int, p: float) -> float:
    """P(X >= k) for X ~ Binomial(n, p), 1 <= k <= n: the incomplete beta function I_p(k, n - k + 1), by its continued
    fraction (DLMF 8.17.22, modified Lentz)."""
    if not 0.0 < p < 1.0:
        return p
    a, b = k, n - k + 1
    if p > (a + 1) / (a + b + 2):
        return 1.0 - _at_least(b, n, 1.0 - p)
    factor = math.exp(a * math.log(p) + b * math.log1p(-p) - _log_beta(a, b)) / a
    fraction, c, d = 1.0, 1.0, 0.0
    for j in range(10_000):
        m = j // 2
        if j == 0:
            term = 1.0
        elif j % 2 == 0:
            term = m * (b - m) * p / ((a + j - 1) * (a + j))
        else:
            term = -(a + m) * (a + b + m) * p / ((a + j - 1) * (a + j))
        d = 1.0 / (1.0 + term * d)
        c = 1.0 + term / c
        fraction *= c * d
        if j and abs(c * d - 1.0) < 1e-15:
            break
    return min(1.0, factor * (fraction - 1.0))


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
