"""The product of tuning as a picture: accuracy over the cost of a decision."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from string import ascii_lowercase

from edgepure.purify.scores import Score
from edgepure.report.page import Figure
from edgepure.report.plots import Plot, Scale
from edgepure.report.text import Markup

from .points import Point, curve
from .result import Tuning

#: References are named by letters: their names would lie on each other.
_LETTERS = ascii_lowercase


def cost_figures(tuning: Tuning) -> list[Figure]:
    """Robust and clean accuracy over cost.

    Gray dots: trials of the search, on its own images. Green with 95 % intervals: the finalists, measured again, and
    the best accuracy so far as a line. Blue with a letter: presets that the bundle had. Orange rings: what became a
    preset.
    """
    letters = "; ".join(f"{letter}: {name}" for letter, name in zip(_LETTERS, tuning.references, strict=False))
    return [
        Figure(_panel(tuning, objective), letters, title)
        for objective, title in (("robust", "Robust accuracy"), ("clean", "Clean accuracy"))
    ]


def _panel(tuning: Tuning, objective: str) -> Markup:
    trials = [p for p in tuning.trials if not p.dropped]
    references = list(tuning.references.values())
    everything = [*trials, *tuning.finalists, *references]
    ends = [v for p in (*tuning.finalists, *references) for v in _score(p, objective).interval]
    x = Scale.over([*(p.cost for p in everything), tuning.budget.limit], log=True, margin=0.08)
    y = Scale.over([*ends, *(p.value(objective) for p in trials)], margin=0.06, unit="%")
    plot = Plot(x, y, f"{tuning.budget.unit} for one decision", height=300)
    plot.rule(tuning.budget.limit)
    plot.dots([p.cost for p in trials], [p.value(objective) for p in trials], "soft", "trials", radius=2.0)
    _points(plot, references, objective, "s3", "presets before")
    _points(plot, tuning.finalists, objective, "good", "finalists, measured again")
    costs, values = _steps(tuning.finalists, objective)
    plot.line(costs, values, "good")
    _names(plot, zip(_LETTERS, references, strict=False), objective, "s3", (6.0, 13.0), " ")
    _names(plot, tuning.chosen.items(), objective, "accent", (7.0, -8.0), ", ")
    for point in tuning.chosen.values():
        plot.ring(point.cost, point.value(objective), "accent")
    return plot.svg(f"{objective} accuracy over the cost of a decision")


def _steps(points: Sequence[Point], objective: str) -> tuple[list[float], list[float]]:
    """The best accuracy so far, as a staircase to the most expensive point."""
    costs: list[float] = []
    values: list[float] = []
    for point in curve(points, objective):
        if costs:
            costs.append(point.cost)
            values.append(values[-1])
        costs.append(point.cost)
        values.append(point.value(objective))
    return [*costs, max(p.cost for p in points)], [*values, values[-1]]


def _names(
    plot: Plot,
    named: Iterable[tuple[str, Point]],
    objective: str,
    kind: str,
    shift: tuple[float, float],
    between: str,
) -> None:
    """Names beside their points; those of one place together."""
    places: dict[tuple[float, float], list[str]] = {}
    for name, point in named:
        places.setdefault((point.cost, point.value(objective)), []).append(name)
    for (cost, value), names in places.items():
        plot.text(cost, value, between.join(names), kind, shift)


def _points(plot: Plot, points: Sequence[Point], objective: str, kind: str, name: str) -> None:
    for point in points:
        plot.between(point.cost, *_score(point, objective).interval, kind)
    plot.dots([p.cost for p in points], [p.value(objective) for p in points], kind, name if points else "")


def _score(point: Point, objective: str) -> Score:
    """The counts behind a value of ``robust`` or ``clean``."""
    if objective == "clean":
        return point.clean
    return min((s for s in (point.attacked, point.whitebox) if s is not None), key=lambda s: s.fraction)
