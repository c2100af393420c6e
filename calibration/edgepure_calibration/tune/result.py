"""What a tuning run found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgepure.purify.scores import Score

from .budget import Budget
from .candidate import Candidate
from .converged import Convergence
from .points import Point
from .settings import TuneSettings


@dataclass(frozen=True)
class Tuning:
    """What a tuning run found.

    Attributes:
        bundle: its name.
        budget: of a decision.
        settings: of the run.
        trials: what the search found, in order.
        finalists: measured again on other images with another attack, in order of cost.
        references: presets that the bundle had before, measured like the finalists.
        skipped: presets that the bundle had and that were too expensive to measure, with their UNet calls.
        chosen: which finalist became which preset; its white-box accuracy is the lowest of `converged`.
        converged: of each chosen preset that was attacked through the defence, by how many steps.
        protocols: how each number was measured.
        facts: device, versions, date, hashes.
        unrecorded: new presets without recorded vectors in the self-test.
    """

    bundle: str
    budget: Budget
    settings: TuneSettings
    trials: Sequence[Point] = field(repr=False)
    finalists: Sequence[Point]
    references: Mapping[str, Point]
    skipped: Mapping[str, int]
    chosen: Mapping[str, Point]
    converged: Mapping[str, Convergence]
    protocols: Mapping[str, Any]
    facts: Mapping[str, Any]
    unrecorded: tuple[str, ...] = ()

    @property
    def attacked_through_defence(self) -> bool:
        """Whether there was a white-box attack."""
        return any(point.whitebox is not None for point in self.finalists)

    def to_dict(self) -> dict[str, Any]:
        """Plain data: the evidence, as it is stored in the bundle."""
        return {
            "bundle": self.bundle,
            "budget": self.budget.to_dict(),
            "settings": self.settings.to_dict(),
            "chosen": {name: point_data(point, self.budget) for name, point in self.chosen.items()},
            "converged": {name: found.to_dict() for name, found in self.converged.items()},
            "finalists": [point_data(point, self.budget) for point in self.finalists],
            "references": {name: point_data(point, self.budget) for name, point in self.references.items()},
            "references not measured": dict(self.skipped),
            "trials": [point_data(point, self.budget) for point in self.trials],
            "protocols": dict(self.protocols),
            "facts": dict(self.facts),
        }


def point_data(point: Point, budget: Budget) -> dict[str, Any]:
    """A point as plain data for people and programs: accuracies with counts and 95 % Clopper-Pearson intervals."""
    data: dict[str, Any] = {
        "summary": point.candidate.summary(),
        **point.candidate.to_dict(),
        "unet_calls": point.calls,
        "latency_ms": point.latency_ms,
        "within_budget": point.cost <= budget.limit,
        "clean": score_data(point.clean),
        "transferred": None if point.attacked is None else score_data(point.attacked),
        "whitebox": None if point.whitebox is None else score_data(point.whitebox),
        "robust": point.robust,
        "trial": point.number if point.number >= 0 else None,
    }
    if point.dropped:
        data["dropped"] = point.dropped
    return data


def point_of(data: Mapping[str, Any]) -> Point:
    """The reverse of `point_data` for a point that was measured whole. Raises KeyError, TypeError or ValueError."""
    clean, attacked, whitebox = (
        None
        if (score := data[name]) is None
        else Score(
            score["images"], score["right"], score["first_purification_right"], score["every_purification_right"]
        )
        for name in ("clean", "transferred", "whitebox")
    )
    if clean is None:
        raise ValueError("nothing was measured")
    return Point(Candidate.from_dict(dict(data)), data["unet_calls"], data["latency_ms"], clean, attacked, whitebox)


def score_data(score: Score) -> dict[str, Any]:
    """Counts, share, interval, and the other decision rules: the first purification alone, every purification right."""
    low, high = score.interval
    return {
        "images": score.images,
        "right": score.right,
        "accuracy": score.fraction,
        "interval95": [low, high],
        "first_purification_right": score.single,
        "every_purification_right": score.worst,
    }
