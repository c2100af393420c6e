"""Votes that stop: how many are needed, and how often the wrong class is declared."""

from __future__ import annotations

import numpy as np
import pytest

from edgepure.methods.presets import SequentialSpec
from edgepure.purify.ballot import BETS, Ballot, capital, chance


def cast(ballot: Ballot, labels: list[int]) -> Ballot:
    for label in labels:
        ballot.cast(label)
    return ballot


@pytest.mark.parametrize(("alpha", "votes"), [(0.05, 6), (0.01, 9), (0.001, 12)])
def test_unanimous_votes(alpha: float, votes: int) -> None:
    ballot = Ballot(SequentialSpec(alpha=alpha))
    assert ballot.fewest() == votes
    assert cast(ballot, [3] * (votes - 1)).settled is None
    assert cast(ballot, [3]).settled == 3 and not ballot.open


def test_the_fewest_are_never_too_many() -> None:
    """No image gets a vote after its answer was settled: those asked for can settle it at the last only."""
    rng = np.random.default_rng(0)
    for _ in range(300):
        ballot = Ballot(SequentialSpec(alpha=0.05, max=40))
        shares = rng.dirichlet([1.0, 0.5, 0.2])
        while ballot.open:
            for left in range(ballot.fewest(), 0, -1):
                assert ballot.settled is None, f"settled with {left} votes under way"
                ballot.cast(int(rng.choice(3, p=shares)))
        assert ballot.votes <= 40


def test_it_abstains_at_the_most() -> None:
    ballot = cast(Ballot(SequentialSpec(max=4)), [0, 1, 0, 1])
    assert ballot.settled is None and not ballot.open
    assert Ballot(SequentialSpec(max=2)).fewest() == 2


@pytest.mark.parametrize("alpha", [0.05, 0.3])
def test_it_abstains_as_soon_as_no_votes_that_are_left_could_settle(alpha: float) -> None:
    """And not before: where it goes on, unanimous votes for some class do settle."""
    rng, spec, early = np.random.default_rng(3), SequentialSpec(alpha=alpha, max=14), 0
    for _ in range(300):
        labels = [int(x) for x in rng.choice(3, p=[0.5, 0.3, 0.2], size=14)]
        for cast_so_far in range(1, 14):
            ballot = cast(Ballot(spec), labels[:cast_so_far])
            if ballot.settled is not None:
                break
            left = 14 - cast_so_far
            could = any(
                cast(Ballot(spec), labels[:cast_so_far] + [label] * left).settled is not None for label in range(4)
            )
            assert ballot.open == could
            early += not could and cast_so_far < 13
    assert early > 100


def test_bets_are_fair_at_even_odds() -> None:
    assert sum(share for _, share in BETS) == pytest.approx(1.0)
    for wins in range(5):
        for losses in range(5):
            after = 0.5 * capital(wins + 1, losses) + 0.5 * capital(wins, losses + 1)
            assert after == pytest.approx(capital(wins, losses))
            assert capital(wins, losses + 1) < capital(wins, losses)


@pytest.mark.parametrize(
    ("shares", "trials"), [((0.51, 0.49), 10_000), ((0.4, 0.35, 0.25), 2000), ((0.34, 0.33, 0.33), 2000)]
)
def test_the_wrong_class_is_declared_more_rarely_than_alpha(shares: tuple[float, ...], trials: int) -> None:
    """Images whose most probable answer is class 0."""
    rng = np.random.default_rng(1)
    alpha = 0.1
    votes = rng.choice(len(shares), p=shares, size=(trials, 30))
    wrong = 0
    for labels in votes.tolist():
        ballot = Ballot(SequentialSpec(alpha=alpha, max=30))
        for label in labels:
            ballot.cast(label)
            if ballot.settled is not None:
                break
        wrong += ballot.settled not in (None, 0)
    assert wrong / trials < alpha


def test_giving_up_declares_nothing_else_and_casts_fewer() -> None:
    """With the same votes the answer is the same, or there is none."""
    rng = np.random.default_rng(11)
    spent, lost = np.zeros(2, int), 0
    for _ in range(400):
        labels = rng.choice(3, p=rng.dirichlet([1.5, 0.7, 0.2]), size=20).tolist()
        found = []
        for give_up in (0.0, 0.1):
            ballot = Ballot(SequentialSpec(alpha=0.05, max=20, give_up=give_up))
            while ballot.open:
                cast(ballot, labels[ballot.votes : ballot.votes + ballot.fewest()])
            found.append(ballot)
        patient, hasty = found
        assert hasty.settled in (None, patient.settled) and hasty.votes <= patient.votes
        spent += patient.votes, hasty.votes
        lost += hasty.settled is None and patient.settled is not None
    assert spent[0] > 1.3 * spent[1]
    assert 0 < lost < 40


def test_the_unanimous_are_never_given_up() -> None:
    ballot = Ballot(SequentialSpec(alpha=0.05, give_up=0.3))
    while ballot.open:
        cast(ballot, [1] * ballot.fewest())
    assert (ballot.settled, ballot.votes) == (1, 6)


@pytest.mark.parametrize(("wins", "losses", "left"), [(0, 0, 19), (3, 1, 16), (0, 4, 12), (7, 0, 30), (4, 4, 0)])
def test_chances_are_those_of_a_beta_binomial(wins: int, losses: int, left: int) -> None:
    rng = np.random.default_rng(5)
    further = rng.binomial(left, rng.beta(wins + 1.0, losses + 1.0, 200_000))
    simulated = (capital(wins + further, losses + left - further) >= 22.0).mean()
    assert chance(wins, losses, left, 22.0) == pytest.approx(simulated, abs=0.005)
    assert chance(wins, losses, left, 0.0) == pytest.approx(1.0)
