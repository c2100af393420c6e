"""An evaluation as one HTML page: tables, resubmission curves, images, protocols. Nothing is loaded from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Mapping
from os import PathLike
from pathlib import Path

import numpy as np

from edgepure.report.page import (
    Card,
    Cards,
    Cell,
    Figure,
    Figures,
    Notes,
    Section,
    Strip,
    Strips,
    Table,
    Verdict,
    page,
    write_page,
)
from edgepure.report.pictures import Picture
from edgepure.report.plots import Plot, Scale
from edgepure.types import Float32

from .accuracy import Accuracy
from .results import AttackResult, Evaluated, PresetResult
from .tables import TextTable, agreement_table, attack_table, cross_table, mask_table, policy_table, summary_table

#: Images shown of each preset, and how much a perturbation is enlarged to be seen.
_SHOWN, _ENLARGED = 4, 5.0
#: An accuracy as tables have it: share, interval, footnote, and perhaps the attack.
_ACCURACY = re.compile(r"([\d.]+ %) \(([^)]+)\) (\[\d+\])(?: (.+))?")


def write_report(found: Evaluated, path: str | PathLike[str]) -> Path:
    """Write the page, whole or not at all.

    Raises:
        EdgepureError: the file cannot be written.
    """
    return write_page(path, render(found), "--report")


def render(found: Evaluated) -> str:
    """The page as UTF-8 text."""
    notes = found.footnotes()
    summary = _section(summary_table(found, notes))
    sections = [_headline(found), summary]
    for preset in (*found.presets, *found.baselines):
        sections.append(_section(attack_table(preset, notes)))
        if preset.attacks:
            sections += [_curves(preset), _pictures(preset, found)]
    more = (mask_table(found, notes), cross_table(found, notes), policy_table(found, notes), agreement_table(found))
    sections += [_section(table) for table in more if table is not None and table.rows]
    sections.append(Section("What was not tested", parts=[Notes(found.not_tested())]))
    sections.append(Section("Protocols", parts=[Notes(notes.lines())]))
    return page(_title(found), sections, _facts(found))


def _title(found: Evaluated) -> str:
    return f"Robustness of {found.bundle}"


def _headline(found: Evaluated) -> Section:
    left = {preset.name: _left(preset) for preset in found.presets}
    cards = [
        Card(
            preset.name,
            _percent(left[preset.name]),
            f"{left[preset.name].rule}, {_under(left[preset.name])}; "
            f"clean {_percent(preset.clean.by_rule('majority'))}",
            _tone(left[preset.name]),
        )
        for preset in found.presets
    ]
    words = (
        f"{len(found.labels)} images. Attacks through the differentiable twin; every number was answered by the "
        f"deployed graphs ({found.facts['engine']}). Each accuracy cites its protocol, below."
    )
    best = max(left, key=lambda name: left[name].fraction)
    low, high = left[best].interval
    under = "under " + _under(left[best]) if any(p.attacks for p in found.presets) else "without an attack"
    verdict = Verdict(
        f"{best} reads {_percent(left[best])} of the images right {under} ({left[best].rule}; 95 % interval "
        f"{100 * low:.1f} to {100 * high:.1f})",
        _tone(left[best]),
    )
    return Section(_title(found), [words], [Cards(cards)], verdict, top=True)


def _under(accuracy: Accuracy) -> str:
    title = accuracy.protocol.title
    return "all of these attacks" if accuracy.protocol.attack == "union" else title


def _left(preset: PresetResult) -> Accuracy:
    """What the attacks leave by the preset's vote: all of them at once, else the worst one, else the clean images."""
    together = next((a for a in preset.union if a.rule.kind == "majority"), None)
    if together is not None:
        return together
    counted = [a for a in preset.attacks if not a.protocol.surrogate] or [preset.clean]
    return min((a.by_rule("majority") for a in counted), key=lambda a: a.fraction)


def _percent(accuracy: Accuracy) -> str:
    return f"{100 * accuracy.fraction:.1f} %"


def _tone(accuracy: Accuracy) -> str:
    return "good" if accuracy.fraction >= 0.8 else "fair" if accuracy.fraction >= 0.5 else "bad"


def _section(table: TextTable) -> Section:
    rows = [[_cell(text) for text in row] for row in table.rows]
    numbers = [name for i, name in enumerate(table.columns) if i and all(_number(row[i]) for row in table.rows)]
    return Section(table.title, [table.note], [Table.of(table.columns, rows, right=numbers)])


def _cell(text: str) -> str | Cell:
    """An accuracy in two or three short lines instead of one that wraps."""
    parts = _ACCURACY.fullmatch(text)
    if parts is None:
        return text
    share, interval, footnote, attack = parts.groups()
    return Cell(f"{share} {footnote}", [interval, *([attack] if attack else [])])


def _number(text: str) -> bool:
    return text == "-" or re.fullmatch(r"[+-]?[\d.]+", text) is not None or _ACCURACY.fullmatch(text) is not None


def _facts(found: Evaluated) -> dict[str, str]:
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


def _pictures(preset: PresetResult, found: Evaluated) -> Section:
    """The first image of some classes, its attacked versions, and the change beside each."""
    words = "The first seed of each attack. Below an image: what the deployed graphs read after one purification."
    picks = [int(np.flatnonzero(found.labels == c)[0]) for c in np.unique(found.labels)][:_SHOWN]
    strips = []
    for i in picks:
        pictures = [_answered(found, preset.clean, found.images[i], "clean", i)]
        for attack in preset.attacks:
            change = np.clip(0.5 + _ENLARGED * (attack.images[i] - found.images[i]), 0.0, 1.0)
            pictures.append(_answered(found, attack, attack.images[i], attack.protocol.title, i))
            pictures.append(Picture(change.astype(np.float32), f"change x {_ENLARGED:g}"))
        strips.append(Strip(f"true class {found.classes[int(found.labels[i])]}", pictures))
    return Section(f"{preset.name}: attacked images", [words], [Strips(strips, wide=True)])


def _answered(found: Evaluated, attack: AttackResult, pixels: Float32, title: str, image: int) -> Picture:
    if not len(attack.answers):
        return Picture(pixels, title)
    answer = int(attack.answers[image])
    return Picture(pixels, title, found.classes[answer], answer == int(found.labels[image]))
