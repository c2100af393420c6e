"""Exact intervals: SciPy agrees, and they cover what they promise."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
from codes import raises_code
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from edgepure.intervals import anytime_log_evidence, anytime_lower_bound, clopper_pearson, lower_bound


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0.5, 0.999))
def test_agrees_with_scipy(counts: tuple[int, int], confidence: float) -> None:
    k, n = counts
    expected = binomtest(k, n).proportion_ci(confidence, method="exact")
    assert clopper_pearson(k, n, confidence) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_the_ends_are_the_ends() -> None:
    assert clopper_pearson(0, 50)[0] == 0.0
    assert clopper_pearson(50, 50)[1] == 1.0
    assert clopper_pearson(0, 100, 0.9)[1] == pytest.approx(1 - 0.05 ** (1 / 100))


@pytest.mark.parametrize(("k", "n"), [(1, 0), (-1, 5), (6, 5)])
def test_what_is_no_share_is_refused(k: int, n: int) -> None:
    with raises_code("E-interval-share"):
        clopper_pearson(k, n)


def test_no_interval_holds_everything() -> None:
    with raises_code("E-interval-confidence"):
        clopper_pearson(1, 5, 1.0)


@pytest.mark.parametrize(
    ("n", "sigmas"), [(32, 0.86), (100, 1.50), (256, 1.93), (1000, 2.46), (10_000, 3.20), (100_000, 3.81)]
)
def test_the_bound_of_unanimous_answers(n: int, sigmas: float) -> None:
    bound = lower_bound(n, n, 0.001)
    assert bound == pytest.approx(0.001 ** (1 / n), rel=1e-10)
    assert NormalDist().inv_cdf(bound) == pytest.approx(sigmas, abs=0.006)
    assert anytime_lower_bound(n, n, 0.001) < bound


def test_bounds_of_nothing() -> None:
    assert lower_bound(0, 10, 0.01) == anytime_lower_bound(0, 10, 0.01) == 0.0


@pytest.mark.parametrize("share", [0.5, 0.9, 0.999])
def test_bounds_are_too_high_as_rarely_as_they_say(share: float) -> None:
    """10,000 experiments: the exact bound at the end, the anytime one at every trial."""
    rng, trials, experiments, alpha = np.random.default_rng(0), 400, 10_000, 0.05
    counts = np.cumsum(rng.random((experiments, trials)) < share, axis=1)
    at_end = np.array([lower_bound(k, trials, alpha) if k else 0.0 for k in range(trials + 1)])
    assert (at_end[counts[:, -1]] > share).mean() < alpha + 3.0 * math.sqrt(alpha / experiments)
    ever = np.zeros(experiments, bool)
    for n in range(1, trials + 1):  # the bound lies above the share if the evidence against the share is 1 / alpha
        above = [k / n > share and anytime_log_evidence(k, n, share) >= -math.log(alpha) for k in range(n + 1)]
        ever |= np.array(above)[counts[:, n - 1]]
    assert ever.mean() < alpha
    assert ever.any() or share > 0.99
    for k, n in ((70, 100), (99, 100), (399, 400)):
        low = anytime_lower_bound(k, n, alpha)
        assert anytime_log_evidence(k, n, low) == pytest.approx(-math.log(alpha), rel=1e-6)
