"""Counting until a radius is settled: how often it errs, and how much sooner it ends."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgepure.intervals import anytime_log_evidence, lower_bound
from edgepure.purify.tally import FixedTally, RadiusTally, Tally, share_of


def fed(tally: Tally, labels: np.ndarray) -> Tally:
    for vote, label in enumerate(labels):
        if tally.done:
            break
        tally.add(vote, int(label))
    return tally


@pytest.mark.parametrize(
    ("shares", "asked", "wrong"),
    [
        ((0.9, 0.1), 0.9, 0),  # just not above: certifying it would be wrong
        ((0.97, 0.01, 0.02), 0.97, 0),
        ((0.5, 0.5), 0.5, None),  # whichever is certified
        ((0.45, 0.3, 0.25), 0.5, None),  # several candidates, none of them right
    ],
)
def test_a_radius_that_is_not_there_is_certified_more_rarely_than_alpha(
    shares: tuple[float, ...], asked: float, wrong: int | None
) -> None:
    rng, alpha, trials, n = np.random.default_rng(0), 0.05, 2500, 300
    certified = 0
    for _ in range(trials):
        found = fed(RadiusTally(1, n, alpha, asked), rng.choice(len(shares), n + 1, p=shares)).result()
        certified += found.probability >= asked and wrong in (None, found.label)
    assert certified / trials <= alpha + 3.0 * math.sqrt(alpha / trials)
    assert certified  # it is no wider than it has to be by far


def test_what_is_reported_is_above_the_true_share_more_rarely_than_alpha() -> None:
    """Whenever the counting stopped, and whatever made it stop."""
    rng, alpha, trials, shares = np.random.default_rng(1), 0.05, 2500, (0.93, 0.05, 0.02)
    too_high = 0
    for _ in range(trials):
        found = fed(RadiusTally(1, 400, alpha, 0.88), rng.choice(3, 401, p=shares)).result()
        too_high += found.probability > shares[found.label]
    assert too_high / trials <= alpha + 3.0 * math.sqrt(alpha / trials)


def test_the_evidence_with_any_prior_is_a_martingale_of_the_true_share() -> None:
    for prior in ((0.5, 0.5), (109.4, 0.5), (3.0, 0.1)):
        for wins, losses in ((0, 0), (5, 0), (40, 3)):
            p, n = 0.93, wins + losses
            after = [math.exp(anytime_log_evidence(k, n + 1, p, prior)) for k in (wins + 1, wins)]
            now = math.exp(anytime_log_evidence(wins, n, p, prior))
            assert p * after[0] + (1.0 - p) * after[1] == pytest.approx(now)


def test_decisions_are_those_of_fixed_n_at_a_fraction_of_the_answers() -> None:
    """Images whose failures spread as widely as those of real ones; the radius is 2 sigma, n = 4000."""
    rng, n, alpha, share = np.random.default_rng(2), 4000, 0.001, share_of(1.0, 0.5)
    answers, same, decided = 0, 0, 0
    for failing in 0.0227 * rng.permutation(np.r_[np.zeros(30), np.geomspace(0.01, 30.0, 30)]):
        labels = (rng.random(n + 1) < failing).astype(int)
        tally = fed(RadiusTally(1, n, alpha, share), labels)
        fixed = lower_bound(int((labels[1:] == 0).sum()), n, alpha) >= share
        found = tally.result()
        assert tally.answers <= n + 1
        answers += tally.answers
        decided += 1
        same += fixed == (found.probability >= share and found.label == 0)
    assert same >= decided - 2
    assert answers * 5 < decided * n


def test_it_ends_when_nothing_can_be_settled_any_more() -> None:
    ones = np.ones(500, int)
    tally = fed(
        RadiusTally(1, 400, 0.001, 0.97), np.r_[0, ones]
    )  # the first answer names a class that never comes back
    found = tally.result()
    assert found.label == 1 and found.probability >= 0.97 and found.samples < tally.answers < 400
    assert fed(RadiusTally(1, 100, 0.001, 0.97), ones).answers == 2  # 100 unanimous answers are too few
    mixed = np.tile([0, 1], 200)
    assert fed(RadiusTally(1, 400, 0.001, 0.97), mixed).answers < 60


def test_answers_count_in_the_order_of_their_votes() -> None:
    rng = np.random.default_rng(3)
    labels = rng.choice(3, 200, p=(0.8, 0.15, 0.05))
    for make in (lambda: FixedTally(20, 150, 0.01), lambda: RadiusTally(1, 150, 0.01, 0.6)):
        straight, shuffled = fed(make(), labels), make()
        for block in range(0, 200, 8):
            for vote in rng.permutation(np.arange(block, block + 8)):
                shuffled.add(int(vote), int(labels[vote]))
        assert shuffled.result() == straight.result()
        assert shuffled.answers == straight.answers and shuffled.done
