"""The search itself: ask for a candidate, measure it, store what was found, until there are enough trials."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from .candidate import Candidate
from .foresight import Foresight
from .measuring import Measuring, not_worth_attacking
from .points import Point
from .space import SearchSpace

if TYPE_CHECKING:  # needs Optuna
    from .trials import Trials


def search(
    study: Trials, space: SearchSpace, measuring: Measuring, trials: int, foresight: Foresight | None = None
) -> list[Point]:
    """All finished points of the study, after as many trials as it takes to have ``trials``.

    A candidate that was measured before is not measured again. An exception, Ctrl-C included, leaves the study with
    every finished trial.
    """
    points = study.points()
    if foresight is not None:
        foresight.found(points[:trials])
    while len(points) < trials:
        if foresight is not None:
            foresight.trial(len(points) + 1, trials)
        trial = study.ask(space.starts())
        try:
            candidate = space.candidate(trial)
            known = next((p for p in points if p.candidate.key == candidate.key), None)
            point = _measure(measuring, space, candidate, points) if known is None else known
            point = replace(point, number=len(points))
        except BaseException:
            study.fail(trial)
            raise
        study.tell(trial, point)
        points.append(point)
        if foresight is not None:
            foresight.measured(point)
    return points


def _measure(measuring: Measuring, space: SearchSpace, candidate: Candidate, points: list[Point]) -> Point:
    point = measuring.cheap(candidate)
    if measuring.whitebox is None and point.cost <= space.budget.limit:
        return point
    dropped = not_worth_attacking(point, points, space.budget.limit)
    return replace(point, dropped=dropped) if dropped else measuring.attack(point)
