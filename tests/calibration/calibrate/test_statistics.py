"""Statistics of score norms against slow definitions and known numbers."""

from __future__ import annotations

import numpy as np
import pytest
from codes import raises_code
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgepure.bundle.calibration import MAX_SAMPLE
from edgepure_calibration.calibrate.reweighting import fit_linear, fit_sigmoid
from edgepure_calibration.calibrate.statistics import (
    auroc,
    auroc_interval,
    distribution,
    rank_correlation,
    reference_sample,
    roc_curve,
)

SOME = hnp.arrays(np.float64, st.integers(2, 30), elements=st.integers(0, 20).map(float))


@given(SOME, SOME)
def test_auroc_counts_pairs_and_is_the_area_below_the_curve(clean: np.ndarray, other: np.ndarray) -> None:
    wins = (other[:, None] > clean[None, :]).mean() + 0.5 * (other[:, None] == clean[None, :]).mean()
    assert auroc(clean, other) == pytest.approx(wins)
    false, true = roc_curve(clean, other)
    assert (false[0], true[0], false[-1], true[-1]) == (0.0, 0.0, 1.0, 1.0)
    area = float(np.sum(np.diff(false) * 0.5 * (true[1:] + true[:-1])))
    assert area == pytest.approx(wins)


@given(st.floats(0.0, 1.0), st.integers(20, 500), st.integers(20, 500))
def test_interval_holds_the_value_and_shrinks_with_more_images(value: float, clean: int, other: int) -> None:
    low, high = auroc_interval(value, clean, other)
    assert 0.0 <= low <= value <= high <= 1.0
    more = auroc_interval(value, 4 * clean, 4 * other)
    assert more[1] - more[0] < high - low
    mirrored = auroc_interval(1.0 - value, clean, other)
    assert mirrored == pytest.approx((1.0 - high, 1.0 - low), abs=1e-6)


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(4)
    truth = 0.921350  # of two normal distributions two standard deviations apart: Phi(2 / sqrt 2)
    covered = 0
    for _ in range(400):
        clean, other = rng.normal(0, 1, 40), rng.normal(2, 1, 30)
        low, high = auroc_interval(auroc(clean, other), 40, 30)
        covered += low <= truth <= high
    assert 0.91 <= covered / 400 <= 0.99


def test_interval_of_a_perfect_separation_is_no_point() -> None:
    low, high = auroc_interval(1.0, 64, 64)
    assert 0.9 < low < 0.98 and high == 1.0


@given(SOME)
def test_rank_correlation_is_pearsons_of_ranks(values: np.ndarray) -> None:
    scipy_stats = pytest.importorskip("scipy.stats")
    other = np.random.default_rng(1).permutation(values)
    expected = 0.0 if len(set(values)) < 2 else float(scipy_stats.spearmanr(values, other).statistic)
    assert rank_correlation(values, other) == pytest.approx(expected, abs=1e-9)


def test_distribution_and_sample_are_of_the_norms() -> None:
    norms = np.random.default_rng(2).normal(300.0, 12.0, 4000)
    found = distribution(norms)
    assert found.mean == pytest.approx(norms.mean(), rel=1e-5)
    assert found.quantiles["0.95"] == pytest.approx(np.quantile(norms, 0.95), rel=1e-5)
    sample = np.array(reference_sample(norms, seed=3))
    assert len(sample) == MAX_SAMPLE and (np.diff(sample) >= 0).all()
    assert sample.mean() == pytest.approx(norms.mean(), abs=2.0)
    assert len(reference_sample(norms[:60])) == 60
    with raises_code("E-norms-few"):
        distribution(norms[:1])


def test_norms_that_do_not_vary_are_refused() -> None:
    with raises_code("E-norms-equal"):
        fit_sigmoid(np.full(60, 3.0), None)
    with raises_code("E-norms-equal"):
        fit_sigmoid(np.zeros(60), None)


@pytest.mark.parametrize("attacks", [None, (600.0, 30.0), (318.0, 4.0), (300.0, 12.0)])
def test_reweighting_gives_attacks_all_of_the_noise(attacks: tuple[float, float] | None) -> None:
    rng = np.random.default_rng(5)
    clean = rng.normal(300.0, 12.0, 500)
    attacked = None if attacks is None else rng.normal(*attacks, 200)
    sigmoid, linear = fit_sigmoid(clean, attacked), fit_linear(clean, attacked)

    def by_sigmoid(norm: float) -> float:
        return float((1.0 + sigmoid.bias) / (1.0 + np.exp((sigmoid.mu - norm) / sigmoid.tau)))

    assert by_sigmoid(float(clean.mean())) == pytest.approx(0.5, abs=1e-3)
    assert 0.949 <= by_sigmoid(float(clean.max())) <= 1.0  # beyond the clean range: (nearly) t*, and never more
    assert linear.xi_min == pytest.approx(clean.min(), rel=1e-5)
    if attacked is not None and np.quantile(attacked, 0.05) > clean.mean():
        assert by_sigmoid(float(np.quantile(attacked, 0.05))) >= 0.949
        assert linear.xi_max == pytest.approx(np.quantile(attacked, 0.05), rel=1e-5)
    else:
        assert linear.xi_max == pytest.approx(clean.max(), rel=1e-5)
