"""Whether the number of a chosen preset comes from an attack that has converged.

Finalists are compared under one attack of a bounded number of steps. A preset that holds against that one may fall to a
longer one, so those that are chosen are attacked again, with twice the steps each time, until no more is found.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from edgepure.purify.scores import Score

from ..work import Work
from .foresight import Foresight
from .measuring import Measuring
from .points import Point

if TYPE_CHECKING:
    from ..attacks.attack import OnShare

#: An attack of twice the steps that finds at most this share of the images more (or one image) finds no more.
SETTLED = 0.01


@dataclass(frozen=True)
class Convergence:
    """White-box accuracy of a preset over the steps of the attack.

    Attributes:
        steps: of each attack, the fewest first.
        scores: what each left right.
    """

    steps: tuple[int, ...]
    scores: tuple[Score, ...]

    @property
    def settled(self) -> bool:
        """Whether the last attack found no more than the one before."""
        if len(self.scores) < 2:
            return False
        before, last = self.scores[-2:]
        return before.right - last.right <= max(1.0, SETTLED * last.images)

    @property
    def lowest(self) -> Score:
        """Of the attack that found most."""
        return min(self.scores, key=lambda score: score.right)

    def __str__(self) -> str:
        pairs = zip(self.scores, self.steps, strict=True)
        shares = ", ".join(f"{100 * score.fraction:.1f} % after {steps} steps" for score, steps in pairs)
        return f"{shares}: {'converged' if self.settled else 'more steps may find more'}"

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {"steps": list(self.steps), "scores": [asdict(score) for score in self.scores], "settled": self.settled}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Convergence:
        return cls(tuple(data["steps"]), tuple(Score(**score) for score in data["scores"]))


def converge(measuring: Measuring, point: Point, doublings: int, on_share: OnShare | None = None) -> Convergence:
    """Attack a measured finalist again on the same images, with twice the steps up to ``doublings`` times."""
    assert measuring.whitebox is not None and point.whitebox is not None
    attack = measuring.whitebox
    found = Convergence((attack.settings.steps,), (point.whitebox,))
    while len(found.steps) <= doublings and not found.settled:
        steps = 2 * found.steps[-1]
        stronger = replace(attack, settings=replace(attack.settings, steps=steps))
        again = replace(measuring, whitebox=stronger).attack(point, on_share).whitebox
        assert again is not None
        found = Convergence((*found.steps, steps), (*found.scores, again))
    return found


def converge_all(
    measuring: Measuring, chosen: Mapping[str, Point], doublings: int, store: Work, foresight: Foresight
) -> dict[str, Convergence]:
    """`converge` of every chosen preset that was attacked through the defence, by name; what is kept stays."""
    found: dict[str, Convergence] = {}
    points = {p.candidate.key: p for p in chosen.values() if p.whitebox is not None}
    costs = {key: 2.0 * measuring.cost(point.candidate) if doublings else 0.0 for key, point in points.items()}
    meter = foresight.harder(sum(costs.values()))
    for place, (key, point) in enumerate(points.items(), start=1):
        asked, words = {"converged": key, "doublings": doublings}, f"more steps, preset {place} of {len(points)}"

        def on_share(share: float, cost: float = costs[key], words: str = words) -> None:
            meter.show(share * cost, words)

        kept = store.recall(asked)
        if kept is None:
            kept = converge(measuring, point, doublings, on_share).to_dict()
            store.remember(asked, kept)
        found[key] = Convergence.from_dict(kept)
        meter.add(costs[key], words)
    return {name: found[p.candidate.key] for name, p in chosen.items() if p.candidate.key in found}
