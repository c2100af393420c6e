"""Measures a candidate in two stages: clean and transferred images, then the expensive attack through the defence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .candidate import Candidate
from .meter import Meter
from .parts import Part
from .points import Point, dominates

if TYPE_CHECKING:  # PyTorch is not needed without a white-box attack
    from .whitebox import WhiteBox


@dataclass(frozen=True)
class Measuring:
    """One protocol on one part of the data.

    Attributes:
        meter: the deployed graphs.
        part: the images.
        noise_seed: of the purifications; the next two numbers seed those of attacked images.
        latency_repeats: decisions timed for the latency; 0: it is not measured.
        whitebox: the attack through the defence; None: there is none.
    """

    meter: Meter
    part: Part
    noise_seed: int
    latency_repeats: int = 0
    whitebox: WhiteBox | None = None

    def cheap(self, candidate: Candidate, number: int = -1) -> Point:
        """Everything but the white-box attack."""
        repeats = self.latency_repeats
        return Point(
            candidate=candidate,
            calls=self.meter.calls(candidate),
            latency_ms=self.meter.latency_ms(candidate, self.part.clean, repeats) if repeats else None,
            clean=self.meter.score(candidate, self.part.clean, self.noise_seed),
            attacked=self.meter.score(candidate, self.part.attacked, self.noise_seed + 1),
            number=number,
        )

    def full(self, candidate: Candidate, on_step: Callable[[int], None] | None = None) -> Point:
        """Everything."""
        return self.attack(self.cheap(candidate), on_step)

    def attack(self, point: Point, on_step: Callable[[int], None] | None = None) -> Point:
        """Add the white-box attack, if there is one."""
        if self.whitebox is None:
            return point
        attacked = self.whitebox(point.candidate, self.part.whitebox, on_step)
        return replace(point, whitebox=self.meter.score(point.candidate, attacked, self.noise_seed + 2))


def not_worth_attacking(point: Point, finished: Sequence[Point], limit: float) -> str:
    """Why the white-box attack on ``point`` would tell nothing; empty if it would.

    - It costs more than the budget (measured milliseconds).
    - It is dominated even if the white-box attack does no harm at all: robust accuracy is that under the attack that
      hurts more, so it cannot exceed that under the transferred one.
    - A finished point costs no more and is better by more than a standard error on clean and on transferred images.
    """
    if point.cost > limit:
        return f"{point.cost:.3g} ms is over the budget"
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
