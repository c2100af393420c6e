"""What was measured of a candidate, and which of several are worth having."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edgepure.purify.scores import Score

from .candidate import Candidate


@dataclass(frozen=True)
class Point:
    """A candidate with its measurements.

    Attributes:
        calls: UNet calls of a decision, votes and probe included; with SSNI the most that an image can need.
        latency_ms: median time of a decision of one image; None under a budget of calls.
        clean, attacked, whitebox: decisions that were right on clean images, on images attacked on the plain
            classifier, and on images attacked through this very defence; None where that was not measured.
        number: of the trial; -1 for presets that were not searched.
        dropped: why it was given up before the white-box attack; empty if it was not.
    """

    candidate: Candidate
    calls: int
    latency_ms: float | None
    clean: Score
    attacked: Score | None
    whitebox: Score | None = None
    number: int = -1
    dropped: str = ""

    @property
    def cost(self) -> float:
        """Milliseconds if they were measured, else UNet calls."""
        return float(self.calls) if self.latency_ms is None else self.latency_ms

    @property
    def robust(self) -> float:
        """Accuracy under the attack that hurts more, in [0, 1]."""
        return min(score.fraction for score in (self.attacked, self.whitebox) if score is not None)

    def value(self, objective: str) -> float:
        """What ``robust``, ``clean`` or ``balanced`` (the mean of both) is to be large."""
        if objective == "balanced":
            return 0.5 * (self.robust + self.clean.fraction)
        return self.robust if objective == "robust" else self.clean.fraction

    def to_dict(self) -> dict[str, Any]:
        data: dict[str, Any] = {
            "candidate": self.candidate.to_dict(),
            "calls": self.calls,
            "latency_ms": self.latency_ms,
            "number": self.number,
            "dropped": self.dropped,
        }
        for name in ("clean", "attacked", "whitebox"):
            score: Score | None = getattr(self, name)
            data[name] = None if score is None else asdict(score)
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Point:
        scores = {n: None if data[n] is None else Score(**data[n]) for n in ("clean", "attacked", "whitebox")}
        return cls(**{**data, **scores, "candidate": Candidate.from_dict(data["candidate"])})


def dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    """No worse in anything and better in something; larger is better."""
    return all(a >= b for a, b in zip(one, other, strict=True)) and tuple(one) != tuple(other)


def curve(points: Sequence[Point], objective: str) -> list[Point]:
    """The accuracy(cost) curve: points in order of cost, each with a larger value than everything cheaper."""
    best: list[Point] = []
    for point in sorted(points, key=lambda p: (p.cost, -p.value(objective), -p.value("balanced"))):
        if not best or point.value(objective) > best[-1].value(objective):
            best.append(point)
    return best


def pareto_front(points: Sequence[Point]) -> list[Point]:
    """Points that no other one dominates in cost, clean and robust accuracy, in order of cost."""
    values = {id(p): (-p.cost, p.clean.fraction, p.robust) for p in points}
    front = [p for p in points if not any(dominates(values[id(q)], values[id(p)]) for q in points)]
    return sorted(front, key=lambda p: (p.cost, -p.robust))


def finalists(points: Sequence[Point], objective: str, most: int) -> list[Point]:
    """At most ``most`` Pareto points to measure again, in order of cost: the ends of the accuracy(cost) curve, the
    largest values of every objective, then the rest of the curve and of the front from its largest value down."""
    front = pareto_front(points)
    line = curve(front, objective)
    first = [line[-1], *(max(front, key=lambda p: (p.value(o), -p.cost)) for o in ("robust", "balanced")), line[0]]
    rest = [*reversed(line), *sorted(front, key=lambda p: (-p.value(objective), p.cost))]
    chosen: dict[str, Point] = {}
    for point in (*first, *rest):
        chosen.setdefault(point.candidate.key, point)
    return sorted(list(chosen.values())[:most], key=lambda p: (p.cost, -p.robust))


def choose(points: Sequence[Point], objective: str, tolerance: float) -> dict[str, Point]:
    """The points that become presets. ``balanced``: the largest mean of clean and robust accuracy; ``robust``: the
    largest robust accuracy; ``fast``: the cheapest whose value is within ``tolerance`` of the largest, and never dearer
    than the two others. Of equal ones the cheaper."""
    balanced = max(points, key=lambda p: (p.value("balanced"), -p.cost))
    robust = max(points, key=lambda p: (p.value("robust"), -p.cost, p.clean.fraction))
    largest = max(p.value(objective) for p in points)
    good = [p for p in points if p.value(objective) >= largest - tolerance]
    fast = min((*good, balanced, robust), key=lambda p: (p.cost, -p.value(objective)))
    return {"fast": fast, "balanced": balanced, "robust": robust}
