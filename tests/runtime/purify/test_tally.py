"""Counting until a radius is settled: how often it errs, and how much sooner it ends."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from edgepure.intervals import anytime_log_evidence, lower_bound
from edgepure.methods.presets import SequentialSpec
from edgepure.purify.ballot import Ballot
from edgepure.purify.cascade import CascadeBallot
from edgepure.purify.tally import FixedTally, RadiusTally, Tally, share_of


def fed(tally: Tally, labels: np.ndarray) -> Tally:
    for vote, label in enumerate(labels):
        if tally.done:
            break
        tally.add(vote, int(label))
    return tally


def ever(share: float, counts: range, ends: Callable[[int, int], bool]) -> float:
    """The exact probability that counting a class with this share of the answers ever ends: (answers, wins) -> end."""
    left, ended = np.ones(1), 0.0
    for answers in counts:
        left = np.append(left * (1.0 - share), 0.0) + np.append(0.0, left * share)
        hit = np.array([ends(answers, wins) for wins in range(answers + 1)])
        ended += float(left[hit].sum())
        left[hit] = 0.0
    return ended


@pytest.mark.parametrize(("share", "answers"), [(0.5, 60), (0.9, 90), (0.977, 200)])
def test_a_radius_that_is_just_not_there_is_certified_more_rarely_than_alpha(share: float, answers: int) -> None:
    """Of one candidate exactly: its share is the bound itself, and it is looked at after every answer."""
    alpha = 0.3
    tally = RadiusTally(1, answers, alpha, share)
    certified = ever(share, range(1, answers + 1), lambda n, wins: tally._certified(0, n, wins))
    assert 0.5 * 0.9 * alpha < certified <= 0.9 * alpha  # it is no wider than it has to be by far


def test_handing_on_a_class_that_has_its_share_is_rarer_than_its_part_of_alpha() -> None:
    ballot = CascadeBallot(SequentialSpec(alpha=0.4, max=200), 0.6, 2)
    assert 0.02 < ever(0.6, range(1, 101), lambda n, wins: ballot._hands_on(n, wins)) <= 0.1
    assert 0.02 < ever(0.6, range(1, 101), lambda n, wins: ballot._settles(0, n, wins)) <= 0.09


@pytest.mark.parametrize(
    ("shares", "asked"),
    [
        ((0.5, 0.5), 0.5),  # whichever is certified
        ((0.45, 0.3, 0.25), 0.5),  # several candidates, none of them right
        ((0.93, 0.05, 0.02), 0.88),  # whenever the counting stopped, and whatever made it stop
    ],
)
def test_what_is_reported_is_above_the_true_share_more_rarely_than_alpha(
    shares: tuple[float, ...], asked: float
) -> None:
    rng, alpha, trials, n, too_high = np.random.default_rng(0), 0.2, 400, 120, 0
    for _ in range(trials):
        found = fed(RadiusTally(1, n, alpha, asked), rng.choice(len(shares), n + 1, p=shares)).result()
        too_high += found.probability > max(shares[found.label], 0.5)
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


@pytest.mark.parametrize("alpha", [0.05, 1e-300])
def test_many_leaders_have_ever_less_risk_and_no_late_one_breaks_the_count(alpha: float) -> None:
    """Every class comes to lead in turn: the risk of a late candidate is smaller than any float."""
    labels = [label for label in range(27) for _ in range(label + 1)]
    tally = fed(RadiusTally(1, 2000, alpha, 0.9), np.array(labels * 2))
    assert tally.done and tally.result().probability < 0.5
    tally = RadiusTally(1, 2000, alpha, 0.5)
    for number in range(400):
        tally._since[1000 + number] = 1, 1
    assert tally.result().probability < 0.5
    ballot = Ballot(SequentialSpec(alpha=alpha, max=1000))
    for label in labels:
        assert ballot.fewest() >= 1
        ballot.cast(label)
    assert ballot.open == (alpha == 0.05)  # no thousand votes settle anything at 1e-300
    cascade = CascadeBallot(SequentialSpec(alpha=alpha, max=1000), 0.99, 2)
    for label in labels[:40]:
        assert cascade.fewest() >= 1
        cascade.cast(label)
