"""Measures a candidate in two stages: clean and transferred images, then the expensive attack through the defence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgepure.report.numerals import number

from .candidate import Candidate
from .deployed import DeployedGraphs
from .points import Point, dominates
from .splits import Split

if TYPE_CHECKING:  # PyTorch is not needed without a white-box attack
    from ..attacks.attack import OnShare
    from .whitebox import WhiteBox


@dataclass(frozen=True)
class Measuring:
    """One way to measure, on one split of the data.

    Attributes:
        graphs: the deployed ones.
        split: the images.
        noise_seed: of the purifications; the next two numbers seed those of attacked images.
        latency_repeats: decisions timed for the latency; 0: it is not measured.
        whitebox: the attack through the defence; None: there is none.
    """

    graphs: DeployedGraphs
    split: Split
    noise_seed: int
    latency_repeats: int = 0
    whitebox: WhiteBox | None = None

    def cost(self, candidate: Candidate, *, attack: bool = True) -> float:
        """About how many UNet calls it takes, gradients counted as several; ``attack``: with the white-box attack."""
        calls, split = self.graphs.calls(candidate), self.split
        total = float(calls * (len(split.clean) + len(split.attacked) + self.latency_repeats))
        if attack and self.whitebox is not None:
            price = self.whitebox.cost(candidate, self.graphs.purifier(candidate.precision))
            total += len(split.whitebox) * (price + calls)
        return total

    def cheap(self, candidate: Candidate, number: int = -1) -> Point:
        """Everything but the white-box attack."""
        repeats = self.latency_repeats
        return Point(
            candidate=candidate,
            calls=self.graphs.calls(candidate),
            latency_ms=self.graphs.latency_ms(candidate, self.split.clean, repeats) if repeats else None,
            clean=self.graphs.score(candidate, self.split.clean, self.noise_seed),
            attacked=self.graphs.score(candidate, self.split.attacked, self.noise_seed + 1),
            number=number,
        )

    def full(self, candidate: Candidate, on_share: OnShare | None = None) -> Point:
        """Everything."""
        return self.attack(self.cheap(candidate), on_share)

    def attack(self, point: Point, on_share: OnShare | None = None) -> Point:
        """Add the white-box attack, if there is one."""
        if self.whitebox is None:
            return point
        purifier = self.graphs.purifier(point.candidate.precision)
        attacked = self.whitebox(point.candidate, purifier, self.split.whitebox, on_share)
        return replace(point, whitebox=self.graphs.score(point.candidate, attacked, self.noise_seed + 2))


def not_worth_attacking(point: Point, finished: Sequence[Point], limit: float) -> str:
    """Why the white-box attack on ``point`` would tell nothing; empty if it would.

    - It costs more than the budget (measured milliseconds).
    - It is dominated even if the white-box attack does no harm at all: robust accuracy is that under the attack that
      hurts more, so it cannot exceed that under the transferred one.
    - A finished point costs no more and is better by more than a standard error on clean and on transferred images.
    """
    if point.cost > limit:
        return f"{number(point.cost)} ms is over the budget"
    for other in finished:
        if other.dropped or other.attacked is None or point.attacked is None:
            continue
        best = (-point.cost, point.clean.fraction, point.attacked.fraction)
        if dominates((-other.cost, other.clean.fraction, other.robust), best):
            return f"dominated by trial {other.number} whatever the attack does"
        share = (other.attacked.right + 1) / (other.attacked.images + 2)  # all of 50 right is no proof of 100 %
        slack = (share * (1.0 - share) / other.attacked.images) ** 0.5
        bar = (-other.cost, other.clean.fraction, other.attacked.fraction - slack)
        if dominates(bar, best):
            return f"dominated by trial {other.number} before the attack"
    return ""
