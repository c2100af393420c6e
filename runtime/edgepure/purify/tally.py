"""Counts of the answers to one image, taken in the order of its votes whatever the order in which they arrive.

`FixedTally` counts ``n`` answers, as Cohen et al. 2019 do. `RadiusTally` may stop after every answer, because its
bounds hold at all times at once: the likelihood of a mixture of shares over that of the true share is a martingale of
mean 1, so that it *ever* reaches ``1 / alpha`` with probability ``alpha`` at most. Where few answers decide is a matter
of the mixture, which is chosen before anything is seen: shares above that of the radius that is asked for.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from statistics import NormalDist
from time import perf_counter

from ..intervals import anytime_log_evidence, anytime_lower_bound, enough_evidence, lower_bound

#: The mixture of `RadiusTally` is a Beta distribution. A class that fails to be given with probability m at the radius
#: is expected to fail with probability 0.2 m, as most images fail much less often or much more often than m.
EXPECTED_FAILURES, FAILURES = 0.2, 0.5
#: Share of ``alpha`` for the first class that may be certified; each further one gets a tenth of the one before.
FIRST_SHARE, SHRINK = 0.9, 0.1

#: Answers under way of an image whose counting may end; of one with many answers a quarter as many.
UNDER_WAY = 16


@dataclass(frozen=True)
class Count:
    """What was counted of one class: ``count`` of ``samples`` answers, its share is ``probability`` at least."""

    label: int
    count: int
    samples: int
    probability: float


class Tally:
    """What both kinds share: the order of the answers, and the time that they took.

    Attributes:
        done: no further answer counts.
        answers: how many were taken, those included that chose the class.
    """

    def __init__(self, most: int) -> None:
        self._early: dict[int, int] = {}
        self._most = most
        self.answers = 0
        self.done = False
        self.started, self.ended = perf_counter(), 0.0

    def add(self, vote: int, label: int) -> None:
        """An answer. What comes after the image is done is not counted."""
        self._early[vote] = label
        while not self.done and self.answers in self._early:
            label = self._early.pop(self.answers)
            self.answers += 1
            if self._count(label):
                self.done, self.ended = True, perf_counter()
                self._early.clear()

    def wants(self, asked: int) -> bool:
        """Whether an image that so many answers were asked for needs more now, not knowing those under way."""
        return asked < self._most

    def _count(self, label: int) -> bool:
        """Count an answer; True if it is the last."""
        raise NotImplementedError

    def result(self) -> Count:
        """What was counted of the class that the image has."""
        raise NotImplementedError

    def proven(self, count: int, samples: int) -> float:
        """The lower bound of the share of a class that has ``count`` of ``samples`` answers, at most."""
        raise NotImplementedError


class FixedTally(Tally):
    """``n0`` answers choose the class, ``n`` fresh ones count it."""

    def __init__(self, n0: int, n: int, alpha: float) -> None:
        super().__init__(n0 + n)
        self._n0, self._n, self._alpha = n0, n, alpha
        self._first: Counter[int] = Counter()
        self._counts: Counter[int] = Counter()

    def _count(self, label: int) -> bool:
        if self.answers <= self._n0:
            self._first[label] += 1
            return False
        self._counts[label] += 1
        return self.answers == self._most

    def result(self) -> Count:
        label = min(self._first, key=lambda c: (-self._first[c], c))
        count = self._counts[label]
        return Count(label, count, self._n, self.proven(count, self._n))

    def proven(self, count: int, samples: int) -> float:
        return lower_bound(count, samples, self._alpha)


class RadiusTally(Tally):
    """Counts until the share of a class is settled to be above ``share`` or not to be, or ``n`` answers are counted.

    ``n0`` answers choose the first candidate. A class that comes to lead later is a candidate too, from the next answer
    on, with a tenth of the risk of the one before: together they err with probability ``alpha`` at most.

    Args:
        share: of the answers, that gives the radius which is asked for; in [1/2, 1).
    """

    def __init__(self, n0: int, n: int, alpha: float, share: float) -> None:
        super().__init__(n0 + n)
        self._n0, self._alpha, self._share = n0, alpha, share
        self._all: Counter[int] = Counter()
        self._since: dict[int, tuple[int, int]] = {}  # of each candidate: answers and wins since it became one
        fail = max(EXPECTED_FAILURES * (1.0 - share), 1e-9)
        self._prior = (FAILURES * (1.0 - fail) / fail, FAILURES)

    def _count(self, label: int) -> bool:
        settled = False
        for number, (candidate, (samples, wins)) in enumerate(self._since.items()):
            samples, wins = samples + 1, wins + (label == candidate)
            self._since[candidate] = samples, wins
            settled = settled or self._certified(number, samples, wins)
        self._all[label] += 1
        if self.answers >= self._n0:
            leader = min(self._all, key=lambda c: (-self._all[c], c))
            leads = all(n < self._all[leader] for c, n in self._all.items() if c != leader)
            if leader not in self._since and (leads or not self._since):
                self._since[leader] = 0, 0
            settled = settled or self._hopeless(leader)
        return settled or self.answers == self._most

    def wants(self, asked: int) -> bool:
        """Few answers are under way, as any of them may be the last: the others would be for nothing."""
        return super().wants(asked) and asked - self.answers < max(UNDER_WAY, self.answers // 4)

    def _certified(self, number: int, samples: int, wins: int) -> bool:
        evidence = anytime_log_evidence(wins, samples, self._share, self._prior)
        return wins > self._share * samples and evidence >= enough_evidence(self._risk(number))

    def _hopeless(self, leader: int) -> bool:
        """Whether the share is below what is asked for, or no answers that are left could show that it is above. This
        costs certificates at most, and makes none."""
        samples, wins = self._since.get(leader, (0, 0))
        if not samples:
            return False
        below = wins < self._share * samples and (
            anytime_log_evidence(wins, samples, self._share) >= enough_evidence(self._alpha)
        )
        left = self._most - self.answers
        number = list(self._since).index(leader)
        return below or not self._certified(number, samples + left, wins + left)

    def _risk(self, number: int) -> float:
        return self._alpha * FIRST_SHARE * SHRINK**number

    def result(self) -> Count:
        found = [
            Count(label, wins, samples, anytime_lower_bound(wins, samples, self._risk(number), self._prior))
            for number, (label, (samples, wins)) in enumerate(self._since.items())
        ]
        return max(found, key=lambda counted: counted.probability)

    def proven(self, count: int, samples: int) -> float:
        return anytime_lower_bound(count, samples, self._risk(0), self._prior)


def share_of(radius: float, sigma: float) -> float:
    """The share of the answers that proves a radius."""
    return min(NormalDist().cdf(radius / sigma), 1.0 - 2**-40)
