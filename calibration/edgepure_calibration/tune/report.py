"""The report of a tuning run: one HTML page with the plot, the table and the protocol of every number."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any

from edgepure.purify.scores import Score
from edgepure.report.numerals import number
from edgepure.report.page import Card, Cards, Cell, Facts, Figures, Notes, Row, Section, Table, page, write_page

from .plot import cost_figures
from .points import Point
from .result import Tuning


def write_report(tuning: Tuning, path: str | PathLike[str]) -> None:
    """Write the page; it appears whole or not at all.

    Raises:
        EdgepureError: the file cannot be written.
    """
    write_page(path, render(tuning), "--report")


def render(tuning: Tuning) -> str:
    """The page as UTF-8 text, with nothing from elsewhere in it."""
    title = f"{tuning.bundle}: accuracy for {tuning.budget.limit:g} {tuning.budget.unit}"
    protocols = Facts({name: _words(value) for name, value in tuning.protocols.items()})
    sections = [
        _headline(tuning, title),
        _plot(tuning),
        _table(tuning),
        Section("How it was measured", parts=[protocols]),
    ]
    return page(title, sections, {key: _words(value) for key, value in tuning.facts.items()})


def _headline(tuning: Tuning, title: str) -> Section:
    cards = [
        Card(
            name,
            f"{100 * point.robust:.1f} %",
            f"robust; {100 * point.clean.fraction:.1f} % clean; {_cost(point)} {tuning.budget.unit}",
        )
        for name, point in tuning.chosen.items()
    ]
    dropped = sum(bool(p.dropped) for p in tuning.trials)
    again = "with an attack of another kind and other noise"
    if not tuning.attacked_through_defence:
        again = (
            "with other noise. Nothing was attacked through the defence: these numbers are against attacks on the "
            "plain classifier only, and an attacker who knows of the defence does better"
        )
    words = (
        f"{len(tuning.trials)} candidates were tried, {dropped} of them given up early. The best were measured again "
        f"on other images, {again}."
    )
    return Section(title, [words], [Cards(cards)], top=True)


def _plot(tuning: Tuning) -> Section:
    below = (
        "Bars: 95 % Clopper-Pearson intervals. Gray dots are what the search saw, on its own images and with its own, "
        "shorter attack. Dashed: the budget."
    )
    return Section("What a decision costs, and what it gets", parts=[Figures(cost_figures(tuning)), Notes([below])])


def _table(tuning: Tuning) -> Section:
    numbers = [tuning.budget.unit, "Clean", "Transferred", "White-box", "Robust"]
    names: dict[str, list[str]] = {}
    for name, point in tuning.chosen.items():
        names.setdefault(point.candidate.key, []).append(name)
    rows = []
    for point in tuning.finalists:
        chosen = ", ".join(names.get(point.candidate.key, ()))
        rows.append(_row(point, chosen or f"trial {point.number}", "default" if chosen else ""))
    rows += [_row(p, name, "plain") for name, p in tuning.references.items()]
    left_out = [f"{name} was not measured: it takes {calls} UNet calls." for name, calls in tuning.skipped.items()]
    table = Table(["Preset", *numbers], rows, numbers)
    steps = [f"{name}, white-box: {found}." for name, found in tuning.converged.items()]
    return Section("Finalists, and the presets that were there before", parts=[table, Notes([*steps, *left_out])])


def _row(point: Point, name: str, mark: str) -> Row:
    calls = [] if point.latency_ms is None else [f"{point.calls} UNet calls"]
    scores = [_cell(score) for score in (point.clean, point.attacked, point.whitebox)]
    robust = Cell(f"{100 * point.robust:.1f} %", strong=True)
    return Row([Cell(name, [point.candidate.summary()]), Cell(_cost(point), calls), *scores, robust], mark)


def _cell(score: Score | None) -> str | Cell:
    if score is None:
        return "-"
    low, high = score.interval
    below = [f"{100 * low:.1f} to {100 * high:.1f}", f"{score.right} of {score.images}"]
    return Cell(f"{100 * score.fraction:.1f} %", below)


def _cost(point: Point) -> str:
    return f"{point.calls}" if point.latency_ms is None else number(point.latency_ms)


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {_words(inner)}" for key, inner in value.items() if inner is not None)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
