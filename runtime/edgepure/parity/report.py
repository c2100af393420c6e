"""Verifications as one self-contained HTML page: verdicts, tables, drift curves, histograms and images."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor, log10
from os import PathLike

import numpy as np

from ..report.environment import environment
from ..report.numerals import number, percent
from ..report.page import (
    Card,
    Cards,
    Cell,
    Figure,
    Figures,
    Notes,
    Part,
    Section,
    Strip,
    Strips,
    Table,
    Verdict,
    page,
    write_page,
)
from ..report.pictures import Picture
from ..report.plots import histogram, log_lines
from .checks import OutputCheck
from .decisions import LabelFlips
from .drift import Drift
from .findings import LayerFinding
from .images import Differing
from .levels import Level
from .tasks import TaskAgreement
from .verification import Verification

#: Fewer images make no histogram.
FEWEST_SHIFTS = 10
_WHAT = {
    "graphs": "One call of every graph, output by output.",
    "rows": "The state of an image after every row of a purification, with the noise, the mask and the plan of the "
    "reference: how far the arithmetic drifts. The dashed line is the tolerance.",
    "images": "A whole purification with the same noise, the masks and plans being each side's own. If a mask pixel at "
    "the cut flips, the images that are compared are made with the reference's mask.",
    "decisions": "Labels of one purification with the same noise. A flip counts against the deployment if a redraw of "
    "the noise does not flip that image too and its two best logits are not tied.",
}
_TONES = {"passed": "good", "failed": "bad"}


def write_report(path: str | PathLike[str], found: Sequence[Verification]) -> None:
    """Write the page, and the folder around it; it appears whole or not at all.

    Raises:
        EdgepureError: the file cannot be written.
    """
    write_page(path, render(found), "--report")


def render(found: Sequence[Verification]) -> str:
    """The page, as UTF-8 text."""
    title = f"Parity of {found[0].bundle}" if found else "Parity"
    sections = [section for one in found for section in _sections(one)]
    return page(title, sections, environment(*(one.provider for one in found)))


def _sections(found: Verification) -> list[Section]:
    cards = [
        Card(f"{level.number}. {level.title}", level.status, f"{len(level.parts)} comparisons", _tone(level))
        for level in found.levels
    ]
    title = f"{found.bundle}, {found.precision} on {found.provider}, against {found.reference}"
    verdict = Verdict(str(found), "good" if found else "bad")
    sections = [Section(title, found.notes, [Cards(cards)], verdict, top=True), *map(_finding, found.findings)]
    for level in found.levels:
        sections.append(_level(level))
        if level.title == "images" and found.differing:
            sections.append(Section("Images that differ most", parts=[Strips([_strip(d) for d in found.differing])]))
    return sections


def _level(level: Level) -> Section:
    checks = [part for part in level.parts if isinstance(part, OutputCheck)]
    checks += [part.check for part in level.parts if isinstance(part, TaskAgreement)]
    drifts = [part for part in level.parts if isinstance(part, Drift)]
    decisions = [part for part in level.parts if isinstance(part, LabelFlips)]
    parts: list[Part] = [_table(checks)] if checks else []
    if drifts:
        parts.append(Figures([_drift(part) for part in drifts]))
    if decisions:
        parts += _decisions(decisions)
    if level.missing:
        parts.append(Notes(level.missing))
    return Section(f"Level {level.number}: {level.title}, {level.status}", [_WHAT[level.title]], parts)


def _table(checks: Sequence[OutputCheck]) -> Table:
    numbers = ["max error", "mean error", "relative L2", "cosine", "mask"]
    rows = [
        [
            Cell(c.subject, [c.problem] if c.problem else []),
            c.quantity,
            _bounded(c.max_error, c.tolerance),
            _number(c.mean_error),
            "-"
            if c.relative_l2 is None
            else Cell(_number(c.relative_l2), [f"allowed {_number(c.relative_tolerance)}"]),
            _number(c.cosine),
            "-" if c.iou is None else Cell(f"IoU {_number(c.iou)}", [f"{c.pixels} pixels differ"]),
            _verdict(bool(c)),
        ]
        for c in checks
    ]
    return Table.of(["What", "Output", *numbers, "Verdict"], rows, right=numbers)


def _drift(drift: Drift) -> Figure:
    errors = [state.relative_l2 for state in drift.states]
    bounds = [tolerance.relative_l2 for tolerance in drift.tolerances]
    series = [("relative L2 of the state", "accent", errors), ("tolerance", "bound", bounds)]
    return Figure(log_lines(drift.rows, series, "after row"), str(drift))


def _decisions(decisions: Sequence[LabelFlips]) -> list[Part]:
    numbers = ["Images", "Agreement", "Flips", "Ties", "Beyond both", "Accuracy"]
    rows: list[list[str | Cell]] = []
    plots = []
    for part in decisions:
        low, high = part.interval
        accuracy: str | Cell = "-"
        if part.labels is not None:
            reference, deployed = (100 * float((x == part.labels).mean()) for x in (part.reference, part.deployed))
            accuracy = Cell(f"{deployed:.1f} %", [f"reference {reference:.1f} %"])
        redraws = "-" if part.redraw_flips is None else str(part.redraw_flips)
        shown = [f"{percent(low)} to {percent(high)} %", f"allowed {100 * part.allowed:g} %"]
        rows.append(
            [
                Cell(part.preset, [part.data]),
                str(part.images),
                f"{100 * (1 - part.flips / part.images):.2f} %",
                Cell(str(part.flips), [f"a redraw: {redraws}"]),
                str(int(part.tied.sum())),
                Cell(str(part.beyond), shown, strong=True),
                accuracy,
                _verdict(bool(part)),
            ]
        )
        if part.images < FEWEST_SHIFTS:
            continue
        name = f"{part.preset}, {part.data}: shift of the margin by"
        plots.append(Figure(histogram(part.margin_shifts, "logits"), f"{name} the deployment"))
        if part.redraw_shifts is not None:
            plots.append(Figure(histogram(part.redraw_shifts, "logits"), f"{name} another draw of the noise"))
    note = "Below the flips beyond redraws and ties: their 95 % Clopper-Pearson interval."
    table = Table.of(["Preset", *numbers, "Verdict"], rows, right=numbers)
    return [table, Notes([note]), *([Figures(plots)] if plots else [])]


def _finding(finding: LayerFinding) -> Section:
    parts: list[Part] = []
    if finding.layers:
        errors = [layer.relative_l2 for layer in finding.layers]
        bounds = [finding.tolerance] * len(errors)
        series = [("relative L2 of the layer", "accent", errors), ("tolerance", "bound", bounds)]
        drawn = log_lines(range(len(errors)), series, "layer, in the order of execution", finding.first)
        parts = [Figures([Figure(drawn)])]
    return Section(f"Where {finding.graph} diverges", [str(finding)], parts)


def _strip(found: Differing) -> Strip:
    apart = np.abs(found.deployed - found.reference)
    worst = float(apart.max())
    # A power of ten, so that two strips can be compared.
    gain = 10.0 ** floor(-log10(worst)) if worst > 0.0 else 1.0
    pictures = [
        Picture(found.image, "input"),
        Picture(found.reference, "reference", found.reference_label),
        Picture(found.deployed, "deployed", found.deployed_label, found.deployed_label == found.reference_label),
        Picture((gain * apart).astype(np.float32), f"difference x {gain:.0e}"),
    ]
    for mask, title in ((found.reference_mask, "reference mask"), (found.deployed_mask, "deployed mask")):
        if mask is not None:
            pictures.append(Picture(found.image, title, mask=mask))
    return Strip(f"{found.preset}, {found.data}, image {found.index}", pictures)


def _tone(level: Level) -> str:
    return _TONES.get(level.status, "fair")


def _verdict(passed: bool) -> Cell:
    return Cell("ok", tone="good") if passed else Cell("FAILED", tone="bad")


def _bounded(value: float | None, bound: float | None) -> Cell:
    return Cell(_number(value), [] if bound is None else [f"allowed {_number(bound)}"])


def _number(value: float | None) -> str:
    return "-" if value is None or value != value else number(value)
