"""The report of a tuning run: one HTML page with the plot, the table and the protocol of every number."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from os import PathLike
from typing import Any

from edgepure.demo.page import page
from edgepure.demo.scores import Score
from edgepure.files.atomic import write_text

from ..plots import figure_to_data_uri
from .plot import cost_figure
from .points import Point
from .result import Tuning

#: The style of the report of the demonstration keeps images square; a plot is not.
_MORE_CSS = "img.plot{aspect-ratio:auto;background:#fff;image-rendering:auto;border:1px solid var(--line)}"


def write_report(tuning: Tuning, path: str | PathLike[str]) -> None:
    """Write the page; it appears whole or not at all.

    Raises:
        EdgepureError: Matplotlib is missing, or the file cannot be written.
    """
    write_text(path, render(tuning))


def render(tuning: Tuning) -> str:
    """The page as UTF-8 text, with nothing from elsewhere in it."""
    title = f"{tuning.bundle}: accuracy for {tuning.budget.limit:g} {tuning.budget.unit}"
    sections = [_headline(tuning, title), _plot(tuning), _table(tuning), _protocols(tuning), _facts(tuning)]
    return page(title, sections, _MORE_CSS)


def _headline(tuning: Tuning, title: str) -> str:
    cards = "".join(
        f'<div class="card"><span>{name}</span><strong>{100 * point.robust:.1f} %</strong>'
        f"<small>robust; {100 * point.clean.fraction:.1f} % clean; {_cost(point, tuning)}</small></div>"
        for name, point in tuning.chosen.items()
    )
    dropped = sum(bool(p.dropped) for p in tuning.trials)
    again = "with an attack of another kind and other noise"
    if not tuning.attacked_through_defence:
        again = (
            "with other noise. Nothing was attacked through the defence: these numbers are against attacks on the "
            "plain classifier only, and an attacker who knows of the defence does better"
        )
    return (
        f"<header><h1>{escape(title)}</h1><p>{len(tuning.trials)} candidates were tried, {dropped} of them given up "
        f"early. The best were measured again on other images, {again}.</p>"
        f'<div class="cards">{cards}</div></header>'
    )


def _plot(tuning: Tuning) -> str:
    uri = figure_to_data_uri(cost_figure(tuning))
    return (
        "<section><h2>What a decision costs, and what it gets</h2>"
        f'<img class="plot" src="{uri}" alt="Robust and clean accuracy over the cost of a decision">'
        '<div class="notes"><p>Bars: 95 % Clopper-Pearson intervals. Gray dots are what the search saw, on its own '
        "images and with its own, shorter attack. Dotted: the budget.</p></div></section>"
    )


def _table(tuning: Tuning) -> str:
    head = "".join(
        f'<th class="num">{h}</th>' for h in (tuning.budget.unit, "Clean", "Transferred", "White-box", "Robust")
    )
    names: dict[str, list[str]] = {}
    for name, point in tuning.chosen.items():
        names.setdefault(point.candidate.key, []).append(name)
    lines = [
        _line(p, ", ".join(names.get(p.candidate.key, ())) or f"trial {p.number}", tuning) for p in tuning.finalists
    ]
    lines += [_line(p, name, tuning, before=True) for name, p in tuning.references.items()]
    left_out = "".join(
        f"<p>{escape(name)} was not measured: it takes {calls} UNet calls.</p>"
        for name, calls in tuning.skipped.items()
    )
    return (
        '<section><h2>Finalists, and the presets that were there before</h2><div class="scroll"><table><thead><tr>'
        f"<th>Preset</th>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
        f'<div class="notes">{left_out}</div></section>'
    )


def _line(point: Point, name: str, tuning: Tuning, *, before: bool = False) -> str:
    mark = ' class="plain"' if before else ' class="default"' if not name.startswith("trial ") else ""
    cells = "".join(_cell(score) for score in (point.clean, point.attacked, point.whitebox))
    return (
        f'<tr{mark}><th scope="row">{escape(name)}<small>{escape(point.candidate.summary())}</small></th>'
        f'<td class="num">{_cost(point, tuning, unit=False)}</td>{cells}'
        f'<td class="num"><b>{100 * point.robust:.1f} %</b></td></tr>'
    )


def _cell(score: Score | None) -> str:
    if score is None:
        return '<td class="num">-</td>'
    low, high = score.interval
    return (
        f'<td class="num">{100 * score.fraction:.1f} %<small>{100 * low:.1f} to {100 * high:.1f}</small>'
        f"<small>{score.right} of {score.images}</small></td>"
    )


def _cost(point: Point, tuning: Tuning, *, unit: bool = True) -> str:
    text = f"{point.calls}" if point.latency_ms is None else f"{point.latency_ms:.3g}"
    if point.latency_ms is not None and not unit:
        return f"{text}<small>{point.calls} UNet calls</small>"
    return f"{text} {tuning.budget.unit}" if unit else text


def _protocols(tuning: Tuning) -> str:
    items = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(_words(value))}</dd>" for name, value in tuning.protocols.items()
    )
    return f"<section><h2>How it was measured</h2><footer><dl>{items}</dl></footer></section>"


def _facts(tuning: Tuning) -> str:
    items = "".join(f"<dt>{escape(k)}</dt><dd>{escape(_words(v))}</dd>" for k, v in tuning.facts.items())
    return f"<footer><h2>Measured with</h2><dl>{items}</dl></footer>"


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {_words(inner)}" for key, inner in value.items() if inner is not None)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
