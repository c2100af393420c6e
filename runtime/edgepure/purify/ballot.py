"""Votes that stop as soon as the answer is settled.

The purified answers of an image are draws from a distribution over classes; its most probable class is the smoothed
answer. A ballot declares a class only if it is that one, except with probability ``alpha``, and may look after every
vote. For a candidate ``c`` and every other class ``j`` it bets, at even odds, that of the votes for c or j the next is
for c. If c is *not* the most probable class, one of these bets is unfavourable: its capital is a supermartingale that
starts at 1, and ever reaches ``1 / alpha`` with probability ``alpha`` at most (Ville). So c may be declared
when the smallest of these capitals gets there, and only the runner-up has to be looked at.

The first vote names the first candidate. Whenever another class leads, it becomes a candidate too, from the next vote
on, with a tenth of the risk of the candidate before it: together they err with probability ``alpha`` at most.
`docs/certificates.md` has the proof.

To abstain declares nothing, so a ballot may do it at any time and by any rule: it does where no votes that are left
could settle the answer, and with ``give_up`` where it is improbable that they do.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from functools import lru_cache
from typing import Any

import numpy as np

from ..methods.presets import SequentialSpec

#: The chances that the bets assume, and the share of the capital on each: most answers are nearly unanimous.
BETS = ((0.75, 0.1), (0.9, 0.2), (0.98, 0.7))
#: Share of ``alpha`` for the first candidate; each further one gets a tenth of the one before.
FIRST_SHARE, SHRINK = 0.9, 0.1
#: Votes before an image is given up: fewer say nothing of the odds.
_TRIED = 3


def capital(wins: Any, losses: Any) -> Any:
    """What 1 has become after these votes (numbers, or arrays of them): a mixture of bets at even odds."""
    return sum(share * (2.0 * p) ** wins * (2.0 * (1.0 - p)) ** losses for p, share in BETS)


@lru_cache(maxsize=1 << 16)
def chance(wins: int, losses: int, left: int, threshold: float) -> float:
    """That the capital is at the threshold after the votes that are left, from what those so far say of their odds:
    (wins + 1) to (losses + 1), Laplace's rule, and after every further vote anew (a beta-binomial distribution)."""
    further = np.arange(left + 1)
    first = np.log((losses + 1.0 + further[:-1]) / (wins + losses + 2.0 + further[:-1])).sum()  # no further win
    steps = (left - further[:-1]) * (wins + 1.0 + further[:-1]) / (further[1:] * (losses + left - further[:-1]))
    ways = np.exp(first + np.append(0.0, np.log(steps).cumsum()))  # of so many further wins
    return float(ways[capital(wins + further, losses + left - further) >= threshold].sum())


class Ballot:
    """The votes on one image.

    Attributes:
        settled: the class that is declared; None as long as there is none.
        votes: how many were cast.
    """

    def __init__(self, spec: SequentialSpec) -> None:
        self._spec = spec
        self._all: Counter[int] = Counter()
        self._since: dict[int, Counter[int]] = {}  # of each candidate, the votes since it became one
        self.settled: int | None = None
        self.votes = 0

    def cast(self, label: int) -> None:
        """One more vote. Those after the answer is settled change nothing."""
        self.votes += 1
        if self.settled is not None:
            return
        for candidate, counts in self._since.items():
            counts[label] += 1
            if self._capital(candidate) >= self._threshold(candidate):
                self.settled = candidate
        self._all[label] += 1
        leads = all(n < self._all[label] for other, n in self._all.items() if other != label)
        if leads and label not in self._since:
            self._since[label] = Counter()

    @property
    def open(self) -> bool:
        """True if more votes can settle the answer, and are likely enough to."""
        if self.settled is not None or self.votes == 0:
            return self.settled is None
        possible = self._needed() <= self._spec.max - self.votes
        if not possible or self._spec.give_up == 0.0 or self.votes < _TRIED:
            return possible
        return self._likeliest() >= self._spec.give_up

    def fewest(self) -> int:
        """How many further votes are needed at least, at most as many as may be cast: that many can be started at once
        and none of them is for nothing. Of an image that may be given up only few."""
        few = min(self._spec.max - self.votes, self._needed())
        return min(few, _TRIED) if self._spec.give_up else few

    def _needed(self) -> int:
        """How many further votes could settle the answer at the soonest; more than `max` where none can."""
        if not self._since:
            return 1 + self._more(self._bar(0), 0, 0)
        most = []
        for candidate, counts in self._since.items():
            wins, losses = counts[candidate], self._losses(candidate)
            most.append(self._more(self._threshold(candidate), wins, losses))
        most.append(self._until_another_leads() + self._more(self._bar(len(self._since)), 0, 0))
        return min(most)

    def _until_another_leads(self) -> int:
        """Votes for a class that is no candidate yet, until it is one."""
        return 1 + max(self._all.values()) - max((n for c, n in self._all.items() if c not in self._since), default=0)

    def _likeliest(self) -> float:
        """The chance that the votes which are left settle the answer for one of the classes."""
        left, ahead = self._spec.max - self.votes, self._until_another_leads()
        found = [math.ldexp(1.0, -ahead) * chance(0, 0, max(left - ahead, 0), self._bar(len(self._since)))]
        for candidate, counts in self._since.items():
            found.append(chance(counts[candidate], self._losses(candidate), left, self._threshold(candidate)))
        return max(found)

    def _more(self, threshold: float, wins: int, losses: int) -> int:
        further = range(1, self._spec.max + 1)
        return 1 + bisect_left(further, threshold, key=lambda more: capital(wins + more, losses))

    def _threshold(self, candidate: int) -> float:
        number = list(self._since).index(candidate)
        return self._bar(number)

    def _bar(self, number: int) -> float:
        risk = self._spec.alpha * FIRST_SHARE * SHRINK**number
        return 1.0 / risk if risk > 0.0 else math.inf

    def _capital(self, candidate: int) -> float:
        return float(capital(self._since[candidate][candidate], self._losses(candidate)))

    def _losses(self, candidate: int) -> int:
        return max((n for label, n in self._since[candidate].items() if label != candidate), default=0)
