"""Upper bounds over images: Clopper and Pearson's where images say 0 or 1, and something sensible between."""

from __future__ import annotations

import numpy as np
import pytest
from codes import raises_code
from scipy.stats import fisher_exact

from edgepure.images.dataset import LabelledImages
from edgepure.intervals import clopper_pearson
from edgepure_calibration.bounds import as_few, mean_high, metric_high, metric_interval
from edgepure_calibration.data_checks import check_attacks
from edgepure_calibration.quantize.labels import decision_checks, flips_of
from edgepure_calibration.quantize.verdict import Limits


def events(images: int, count: int) -> np.ndarray:
    return np.arange(images) < count


@pytest.mark.parametrize(("images", "count"), [(20, 0), (20, 20), (60, 3), (299, 0), (400, 12)])
def test_whole_events_have_the_exact_bound(images: int, count: int) -> None:
    exact = clopper_pearson(count, images, 0.9)[1]
    for noises in (1, 5):  # however often an image is asked, it is one image
        found = mean_high(np.repeat(events(images, count)[:, None], noises, axis=1))
        assert found == pytest.approx(exact, rel=0.02)
        assert count or found == pytest.approx(exact, rel=1e-9)


def test_tiny_losses_count_as_tiny() -> None:
    nothing, tiny, half = (mean_high(np.full((48, 3), loss)) for loss in (0.0, 1e-9, 0.5))
    assert nothing == pytest.approx(1.0 - 0.05 ** (1.0 / 48.0))  # Clopper and Pearson, no event
    assert nothing <= tiny < nothing + 1e-6
    assert half == pytest.approx(0.5 + 0.5 * nothing)  # all images say the same: what is left is the one not seen
    assert mean_high(np.ones((48, 3))) == 1.0
    one = np.zeros((48, 3))
    one[0, 0] = 1.0
    assert nothing < mean_high(one) < 0.0951  # a third of an image


def test_a_metric_that_is_a_mean_has_the_bound_of_a_mean() -> None:
    values = np.random.default_rng(0).beta(0.3, 2.0, 300)
    metric = lambda weights: float(weights @ values / weights.sum())  # noqa: E731
    assert metric_high(metric, 300) == pytest.approx(mean_high(values), rel=0.02)
    low, high = metric_interval(metric, 300)
    assert low < values.mean() < high
    for value in (0.0, 1.0):
        low, high = metric_interval(lambda weights, value=value: value, 3)
        assert 0.0 <= low <= high <= 1.0 and not np.signbit(low)
    assert metric_interval(lambda weights: 1.0, 60) == pytest.approx(clopper_pearson(60, 60), abs=1e-9)


def test_what_new_noise_flips_is_measured_too() -> None:
    """6 of 300 images flip with the variant and none with new noise: more than a point too many. As many that flip
    anyway excuse them only as far as they are known."""
    theirs, mine = np.zeros((300, 2), np.int64), np.zeros((300, 2), np.int64)
    mine[:6] = 1
    quiet = flips_of(mine, theirs, None)
    assert quiet.beyond_high == pytest.approx(quiet.high, rel=0.02)
    theirs[100:108, 0], mine[100:108, 0] = 1, 1
    noisy = flips_of(mine, theirs, None)
    assert (noisy.flipped, noisy.redrawn) == (12, 16)
    estimate = (noisy.flipped - noisy.redrawn) / noisy.decisions
    assert estimate < 0.0 < noisy.beyond_high < noisy.high
    (one,) = decision_checks({"clean": noisy}, Limits(flips=0.01))
    assert one.passed == (noisy.beyond_high <= 0.01)


def test_the_rate_of_the_gate_where_new_noise_flips() -> None:
    """A variant that flips a point too many passes in 5 % of the runs; the share that new noise flips is a sample."""
    rng, passed = np.random.default_rng(0), 0
    for _ in range(200):
        redrawn, flipped = rng.random(400) < 0.04, rng.random(400) < 0.03
        theirs = np.stack([np.zeros(400, np.int64), (redrawn & (rng.random(400) < 0.5)).astype(np.int64)], axis=1)
        mine = theirs + 2 * flipped[:, None]
        passed += decision_checks({"clean": flips_of(mine, theirs, None)}, Limits())[0].passed
    assert passed <= 19  # of 200 at 5 %: more in 0.5 % of all cases


def labelled(right: int, images: int) -> LabelledImages:
    pixels = np.zeros((images, 1, 1, 2), np.float32)
    pixels[:, 0, 0, 1], pixels[:, 0, 0, 0] = events(images, right), ~events(images, right)
    return LabelledImages(pixels, np.ones(images, np.int64), tuple(map(str, range(images))))


@pytest.mark.parametrize("table", [(8, 12, 12, 12), (0, 5, 0, 7), (40, 100, 50, 100), (3, 60, 200, 900)])
def test_fishers_exact_test(table: tuple[int, int, int, int]) -> None:
    one, of, other, of_other = table
    exact = fisher_exact([[one, of - one], [other, of_other - other]], alternative="less")[1]
    assert as_few(*table) == pytest.approx(exact, rel=1e-9)


def test_attacks_are_told_from_luck() -> None:
    """50 of 100 and 40 of 100 are within what chance does (p = 0.10); 50 and 35 are not."""
    logits = lambda images: images[:, 0, 0]  # noqa: E731
    with raises_code("E-attacked-weak"):
        check_attacks(labelled(50, 100), labelled(40, 100), logits, "x")
    check_attacks(labelled(50, 100), labelled(35, 100), logits, "x")
