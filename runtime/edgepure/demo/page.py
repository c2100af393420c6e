"""The report of a demonstration as a page (``report.html``) beside its data (``report.json``)."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..files.atomic import write_text
from ..purify.scores import Score
from ..report.numerals import number
from ..report.page import Card, Cards, Cell, Notes, Part, Row, Section, Strip, Strips, Table, page, write_page
from .report import COLUMNS, DemoReport, Gallery, MethodScores

_FOOTNOTES = "¹²³"


def write(report: DemoReport, out: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Write report.html and report.json into the folder ``out``; each appears whole or not at all.

    Returns the two paths.

    Raises:
        EdgepureError: the folder cannot be written.
    """
    text = json.dumps(report.to_dict(), indent=2, allow_nan=False) + "\n"
    shown = write_page(Path(out) / "report.html", render(report), "--out")
    write_text(shown.with_name("report.json"), text)
    return shown, shown.with_name("report.json")


def render(report: DemoReport) -> str:
    """The page, as UTF-8 text."""
    sections = [
        _headline(report),
        *(_gallery(g) for g in report.galleries[:1]),
        _accuracy(report),
        *(_gallery(g) for g in report.galleries[1:]),
        *([_plan(report)] if report.plan else []),
    ]
    timings = {f"time, {stage}": f"{seconds:.1f} s" for stage, seconds in report.timings.items()}
    return page(report.title, sections, {**_flat(report.facts), **timings})


def _headline(report: DemoReport) -> Section:
    best, plain = report.method(report.default), report.plain
    calls = f"{_number(best.unet_calls_decision)} UNet calls a decision"
    cards = [
        ("Attacked, no defence", plain.get("attacked"), "the plain classifier"),
        ("Attacked, purified", best.attacked, f"{best.name}, {calls}"),
        ("Clean, purified", best.clean, f"without the defence {_percent(plain.get('clean'))}"),
        ("Attacked through the defence", best.whitebox, f"without the defence {_percent(plain.get('whitebox'))}"),
    ]
    shown = [Card(label, _percent(score), below, _tone(score)) for label, score, below in cards if score is not None]
    return Section(report.title, [report.summary], [Cards(shown)], top=True)


def _gallery(gallery: Gallery) -> Section:
    strips = Strips([Strip(title, pictures) for title, pictures in gallery.strips], wide=gallery.wide)
    return Section(gallery.title, [gallery.note], [strips])


def _accuracy(report: DemoReport) -> Section:
    shown = [(key, heading) for key, heading in COLUMNS if _measured(report, key)]
    heads = [f"{heading}{mark}" for (_, heading), mark in zip(shown, _FOOTNOTES, strict=False)]
    alone = Cell("no purification", ["the classifier alone"])
    rows = [Row([alone, "0", "-", *(_cell(report.plain.get(key)) for key, _ in shown)], "plain")]
    for method in report.methods:
        cells = [_cell(getattr(method, key)) for key, _ in shown]
        rows.append(Row([*_method_cells(method), *cells], "default" if method.name == report.default else ""))
    right = ["UNet calls", "ms / image", *heads]
    below = (
        "Below each accuracy: its 95 % Clopper-Pearson interval; the bar shows the accuracy. UNet calls: of one "
        "decision with all its votes, the mean over the images; below it of one purification. ms / image: of one "
        "decision, many images at once, on this machine."
    )
    parts: list[Part] = [
        Table(["Method", *right], rows, right),
        Notes([_footnote(report, key) for key, _ in shown], numbered=True),
        Notes([below, *report.notes]),
    ]
    return Section("Accuracy", parts=parts)


def _method_cells(method: MethodScores) -> list[str | Cell]:
    time = "-" if method.ms_per_image is None else f"{method.ms_per_image:.1f}"
    calls = Cell(_number(method.unet_calls_decision), [f"{_number(method.unet_calls)} a purification"])
    return [Cell(method.name, [method.description]), calls, time]


def _cell(score: Score | None) -> str | Cell:
    if score is None:
        return "-"
    low, high = score.interval
    words = [f"{100 * low:.1f} to {100 * high:.1f}"]
    return Cell(_percent(score), words, strong=True, bar=score.fraction, bar_tone=_tone(score))


def _footnote(report: DemoReport, key: str) -> str:
    heading = dict(COLUMNS)[key]
    text = f"{heading}: {report.protocols[key].sentence()}" if key in report.protocols else heading
    own = report.protocols.get(f"plain_{key}")
    if own is not None:
        text += f" The classifier alone: {own.sentence()}"
    for rule, words in (("single", "the first purification alone"), ("worst", "every purification right")):
        best = getattr(report.method(report.default), key)
        count = None if best is None else getattr(best, rule)
        if best is not None and count is not None:
            text += f" {report.default}, {words}: {100 * count / best.images:.1f} %."
    return text


def _plan(report: DemoReport) -> Section:
    rows = [
        [str(i), str(row["stage"]), f"{row['t']:g}", "clean" if row["to"] < 0 else f"{row['to']:g}"]
        for i, row in enumerate(report.plan, start=1)
    ]
    words = (
        "One row is one call of the UNet: from one noise level (timestep) to the next. `edgepure plan` prints the same "
        "for every preset."
    )
    table = Table.of(["Call", "Stage", "t", "to"], rows, right=["Call", "t", "to"], heads=False, narrow=True)
    return Section(f"What {report.default} does", [words], [table])


def _flat(facts: Mapping[str, Any], above: str = "") -> dict[str, str]:
    """Nested facts as "above, key": text."""
    flat: dict[str, str] = {}
    for key, value in facts.items():
        name = f"{above}, {key}" if above else key
        if isinstance(value, Mapping):
            flat.update(_flat(value, name))
        else:
            flat[name] = number(value) if isinstance(value, float) else str(value)
    return flat


def _measured(report: DemoReport, key: str) -> bool:
    return report.plain.get(key) is not None or any(getattr(m, key) is not None for m in report.methods)


def _percent(score: Score | None) -> str:
    return "-" if score is None else f"{100 * score.fraction:.1f} %"


def _tone(score: Score | None) -> str:
    """Green, amber or red."""
    if score is None:
        return ""
    return "good" if score.fraction >= 0.8 else "fair" if score.fraction >= 0.5 else "bad"


def _number(value: float) -> str:
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.1f}"
