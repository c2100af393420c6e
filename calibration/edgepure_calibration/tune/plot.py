"""The product of tuning as a picture: accuracy over the cost of a decision."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from string import ascii_lowercase
from typing import Any

from edgepure.demo.scores import Score

from ..plots import new_figure
from .points import Point, curve
from .result import Tuning

#: References are named by letters: their names would lie on each other.
_LETTERS = ascii_lowercase
_TRIAL, _FINAL, _REFERENCE, _CHOSEN = "#b9bec6", "#12805c", "#646a73", "#ee5928"


def cost_figure(tuning: Tuning) -> Any:
    """A Matplotlib figure with two panels, robust and clean accuracy over cost.

    Gray dots: trials of the search, on its own images. Green with 95 % intervals: the finalists, measured again, and
    the best accuracy so far as a line. Gray squares with a letter: presets that the bundle had. Orange rings: what
    became a preset.
    """
    figure, axes = new_figure(9.0, 4.4, nrows=1, ncols=2, sharex=True)
    from matplotlib.ticker import LogLocator, NullFormatter

    for axis, objective, title in zip(axes, ("robust", "clean"), ("Robust accuracy", "Clean accuracy"), strict=True):
        axis.set_xscale("log")
        axis.axvline(tuning.budget.limit, color="#c2342b", linewidth=0.8, linestyle=":")
        _panel(axis, tuning, objective)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel(f"{tuning.budget.unit} for one decision")
        axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.yaxis.set_major_formatter(lambda y, _: f"{100 * y:.4g} %")
        axis.margins(x=0.12, y=0.12)
        axis.grid(alpha=0.25)
    axes[0].legend(fontsize=8, loc="lower right")
    letters = "   ".join(f"{letter} {name}" for letter, name in zip(_LETTERS, tuning.references, strict=False))
    figure.supxlabel(letters, fontsize=8, color=_REFERENCE)
    return figure


def _panel(axis: Any, tuning: Tuning, objective: str) -> None:
    trials = [p for p in tuning.trials if not p.dropped]
    axis.scatter([p.cost for p in trials], [p.value(objective) for p in trials], s=12, color=_TRIAL, label="trials")
    _bars(axis, list(tuning.references.values()), objective, "s", _REFERENCE, "presets before")
    _bars(axis, tuning.finalists, objective, "o", _FINAL, "finalists, measured again")
    line = curve(tuning.finalists, objective)
    costs = [p.cost for p in line] + [max(p.cost for p in tuning.finalists)]
    values = [p.value(objective) for p in line]
    axis.step(costs, [*values, values[-1]], where="post", color=_FINAL, linewidth=1.2)
    _names(axis, zip(_LETTERS, tuning.references.values(), strict=False), objective, _REFERENCE, (5, -9), " ")
    _names(axis, tuning.chosen.items(), objective, _CHOSEN, (6, 8), ", ")
    for point in tuning.chosen.values():
        place = (point.cost, point.value(objective))
        axis.scatter(*place, s=110, facecolors="none", edgecolors=_CHOSEN, linewidths=1.6, zorder=4)


def _names(
    axis: Any,
    named: Iterable[tuple[str, Point]],
    objective: str,
    color: str,
    offset: tuple[int, int],
    between: str,
) -> None:
    """Names beside their points; those of one place together."""
    places: dict[tuple[float, float], list[str]] = {}
    for name, point in named:
        places.setdefault((point.cost, point.value(objective)), []).append(name)
    for place, names in places.items():
        text = between.join(names)
        axis.annotate(text, place, fontsize=8, color=color, xytext=offset, textcoords="offset points")


def _bars(axis: Any, points: Sequence[Point], objective: str, marker: str, color: str, label: str) -> None:
    if not points:
        return
    values = [p.value(objective) for p in points]
    intervals = [_score(p, objective).interval for p in points]
    below = [max(0.0, v - low) for v, (low, _) in zip(values, intervals, strict=True)]
    above = [max(0.0, high - v) for v, (_, high) in zip(values, intervals, strict=True)]
    axis.errorbar(
        [p.cost for p in points], values, yerr=[below, above], fmt=marker, markersize=5, color=color, elinewidth=0.8,
        capsize=2, label=label, zorder=3,
    )  # fmt: skip


def _score(point: Point, objective: str) -> Score:
    """The counts behind a value of ``robust`` or ``clean``."""
    if objective == "clean":
        return point.clean
    return min((s for s in (point.attacked, point.whitebox) if s is not None), key=lambda s: s.fraction)
