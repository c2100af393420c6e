"""An evaluation as one HTML page: tables, resubmission curves, images, protocols. Nothing is loaded from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Mapping
from os import PathLike
from pathlib import Path

import numpy as np

from edgepure.report.page import Card, Cards, Cell, Figure, Figures, Notes, Section, Strip, Strips, page, write_page
from edgepure.report.page import Table as PageTable
from edgepure.report.pictures import Picture
from edgepure.report.plots import Plot, Scale

from .protocol import Accuracy, Footnotes
from .results import Evaluation, PresetResult
from .tables import Table, agreement_table, attack_table, mask_table, policy_table, summary_table

#: Images shown of each preset, and how much a perturbation is enlarged to be seen.
_SHOWN, _ENLARGED = 4, 5.0
#: An accuracy as tables have it: share, interval, footnote, and perhaps the attack.
_ACCURACY = re.compile(r"([\d.]+ %) \(([^)]+)\) (\[\d+\])(?: (.+))?")


def write_report(found: Evaluation, path: str | PathLike[str]) -> Path:
    """Write the page, whole or not at all.

    Raises:
        EdgepureError: the file cannot be written.
    """
    return write_page(path, render(found), "--report")


def render(found: Evaluation) -> str:
    """The page as UTF-8 text."""
    notes = Footnotes()
    summary = _section(summary_table(found, notes))
    sections = [_headline(found), summary]
    for preset in found.presets:
        sections.append(_section(attack_table(preset, notes)))
        if preset.attacks:
            sections += [_curves(preset), _pictures(preset, found)]
    more = (mask_table(found, notes), policy_table(found, notes), agreement_table(found))
    sections += [_section(table) for table in more if table is not None and table.rows]
    sections.append(Section("What was not tested", parts=[Notes(found.not_tested())]))
    sections.append(Section("Protocols", parts=[Notes(notes.lines())]))
    return page(_title(found), sections, _facts(found))


def _title(found: Evaluation) -> str:
    return f"Robustness of {found.bundle}"


def _headline(found: Evaluation) -> Section:
    cards = []
    for preset in found.presets:
        worst = preset.worst
        shown = preset.clean if worst is None else worst
        accuracy = next((a for a in preset.union if a.rule.kind == "majority"), shown.by_rule("majority"))
        under = f"{accuracy.rule}, {accuracy.protocol.title}; clean {_percent(preset.clean.by_rule('majority'))}"
        cards.append(Card(preset.name, _percent(accuracy), under, _tone(accuracy)))
    words = (
        f"{len(found.labels)} images. Attacks through the differentiable twin; every number was answered by the "
        f"deployed graphs ({found.facts['engine']}). Each accuracy cites its protocol, below."
    )
    return Section(_title(found), [words], [Cards(cards)], top=True)


def _percent(accuracy: Accuracy) -> str:
    return f"{100 * accuracy.fraction:.1f} %"


def _tone(accuracy: Accuracy) -> str:
    return "good" if accuracy.fraction >= 0.8 else "fair" if accuracy.fraction >= 0.5 else "bad"


def _section(table: Table) -> Section:
    rows = [[_cell(text) for text in row] for row in table.rows]
    numbers = [name for i, name in enumerate(table.columns) if i and all(_number(row[i]) for row in table.rows)]
    return Section(table.title, [table.note], [PageTable.of(table.columns, rows, right=numbers)])


def _cell(text: str) -> str | Cell:
    """An accuracy in two or three short lines instead of one that wraps."""
    parts = _ACCURACY.fullmatch(text)
    if parts is None:
        return text
    share, interval, footnote, attack = parts.groups()
    return Cell(f"{share} {footnote}", [interval, *([attack] if attack else [])])


def _number(text: str) -> bool:
    return text == "-" or re.fullmatch(r"[+-]?[\d.]+", text) is not None or _ACCURACY.fullmatch(text) is not None


def _facts(found: Evaluation) -> dict[str, str]:
    """What the numbers were measured with, nested facts in one line each."""
    shown: dict[str, str] = {}
    for key, value in found.facts.items():
        if not isinstance(value, Mapping):
            shown[key] = str(value)
            continue
        for preset, memory in value.items():
            shown[f"{key}, {preset}"] = (
                f"{memory['weights'] / 1e6:.1f} MB of weights, {memory['per_copy'] / 1e6:.2f} MB for each copy of an "
                f"image; {memory['copies_in_24_GB']} copies fit 24 GB"
            )
    return shown


def _curves(preset: PresetResult) -> Section:
    attacks = (preset.clean, *preset.attacks)
    most = max(2, *(len(a.resubmission) for a in attacks))
    top = max(0.1, *(v for a in attacks for v in a.resubmission))
    plot = Plot(Scale(1.0, float(most), whole=True), Scale(0.0, top, unit="%"), "queries with the same image")
    for number, attack in enumerate(attacks):
        queries = range(1, len(attack.resubmission) + 1)
        plot.line(queries, attack.resubmission, f"s{number % 8}", attack.protocol.title, dots=True)
    words = (
        "Share of the images that were read wrong at least once after so many single purifications with fresh noise: "
        "what an attacker gains by trying again. Protocols as in the table above."
    )
    figure = Figure(plot.svg("read wrong at least once, by queries"))
    return Section(f"{preset.name}: sending an image again", [words], [Figures([figure])])


def _pictures(preset: PresetResult, found: Evaluation) -> Section:
    """The first image of some classes, its attacked versions, and the change beside each."""
    picks = [int(np.flatnonzero(found.labels == c)[0]) for c in np.unique(found.labels)][:_SHOWN]
    strips = []
    for i in picks:
        pictures = [Picture(found.images[i], "clean")]
        for attack in preset.attacks:
            change = np.clip(0.5 + _ENLARGED * (attack.images[i] - found.images[i]), 0.0, 1.0)
            pictures.append(Picture(attack.images[i], attack.protocol.title))
            pictures.append(Picture(change.astype(np.float32), f"change x {_ENLARGED:g}"))
        strips.append(Strip(f"true class {found.classes[int(found.labels[i])]}", pictures))
    return Section(f"{preset.name}: attacked images", ["The first seed of each attack."], [Strips(strips, wide=True)])
