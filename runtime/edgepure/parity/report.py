"""Verifications as one self-contained HTML page: tables, drift curves, histograms and image strips."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import floor, log10
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..demo.page import page, png_data_uri
from ..demo.report import Picture, environment
from ..errors import EdgepureError
from ..files.atomic import write_text
from ..report.plots import CSS, histogram, log_lines
from .checks import Check
from .decisions import Decisions
from .drift import Drift
from .findings import LayerFinding
from .levels import Level
from .strips import Strip

if TYPE_CHECKING:
    from .verify import Verification

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


def write_report(path: str | PathLike[str], found: Sequence[Verification]) -> None:
    """Write the page, and the folder around it; it appears whole or not at all.

    Raises:
        EdgepureError: the file cannot be written.
    """
    folder = Path(path).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EdgepureError(
            f"the report cannot be written to {folder}: {error.strerror or error}; choose another place with --report"
        ) from None
    write_text(path, render(found))


def render(found: Sequence[Verification]) -> str:
    """The page, as UTF-8 text."""
    title = f"Parity of {found[0].bundle}" if found else "Parity"
    sections = [part for one in found for part in _sections(one)]
    facts = "".join(
        f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in environment(*(one.provider for one in found)).items()
    )
    sections.append(f"<footer><h2>Measured with</h2><dl>{facts}</dl></footer>")
    return page(title, sections, CSS)


def _sections(found: Verification) -> list[str]:
    cards = "".join(
        f'<div class="card {_tone(level)}"><span>{level.number}. {level.title}</span><strong>{level.status}</strong>'
        f"<small>{len(level.parts)} comparisons</small></div>"
        for level in found.levels
    )
    notes = "".join(f"<p>{escape(note)}</p>" for note in found.notes)
    title = f"{found.bundle}, {found.precision} on {found.provider}, against {found.reference}"
    parts = [
        f'<header><h1>{escape(title)}</h1><p>{escape(str(found))}</p>{notes}<div class="cards">{cards}</div></header>'
    ]
    parts += [_finding(finding) for finding in found.findings]
    for level in found.levels:
        parts.append(_level(level) + (_strips(found.strips) if level.title == "images" else ""))
    return parts


def _level(level: Level) -> str:
    missing = "".join(f"<li>{escape(text)}</li>" for text in level.missing)
    drifts = [part for part in level.parts if isinstance(part, Drift)]
    decisions = [part for part in level.parts if isinstance(part, Decisions)]
    body = _table([part for part in level.parts if isinstance(part, Check)])
    if drifts:
        body += f'<div class="plots">{"".join(_drift(part) for part in drifts)}</div>'
    if decisions:
        body += _decisions(decisions)
    return (
        f"<section><h2>Level {level.number}: {level.title}, {level.status}</h2><p>{_WHAT[level.title]}</p>{body}"
        + (f'<ul class="notes">{missing}</ul>' if missing else "")
        + "</section>"
    )


def _table(checks: Sequence[Check]) -> str:
    if not checks:
        return ""
    lines = "".join(
        f'<tr><th scope="row">{escape(c.subject)}<small>{escape(c.problem)}</small></th><td>{escape(c.quantity)}</td>'
        + "".join(
            f'<td class="num">{_number(v)}</td>'
            for v in (c.max_error, c.tolerance, c.mean_error, c.relative_l2, c.relative_tolerance, c.cosine, c.iou)
        )
        + f'<td class="num">{"-" if c.pixels is None else c.pixels}</td>{_verdict(bool(c))}</tr>'
        for c in checks
    )
    head = ("max error", "allowed", "mean error", "relative L2", "allowed", "cosine", "IoU", "pixels")
    return (
        '<div class="scroll"><table><thead><tr><th>What</th><th>Output</th>'
        + "".join(f'<th class="num">{h}</th>' for h in head)
        + f"<th>Verdict</th></tr></thead><tbody>{lines}</tbody></table></div>"
    )


def _drift(drift: Drift) -> str:
    errors = [state.relative_l2 for state in drift.states]
    bounds = [tolerance.relative_l2 for tolerance in drift.tolerances]
    plot = log_lines(
        drift.rows, [("relative L2 of the state", "line0", errors), ("tolerance", "bound", bounds)], "after row"
    )
    return f"<figure>{plot}<figcaption>{escape(str(drift))}</figcaption></figure>"


def _decisions(decisions: Sequence[Decisions]) -> str:
    lines, plots = [], []
    for part in decisions:
        low, high = part.interval
        accuracy = "-"
        if part.labels is not None:
            accuracy = " / ".join(
                f"{100 * float((x == part.labels).mean()):.1f} %" for x in (part.reference, part.deployed)
            )
        lines.append(
            f'<tr><th scope="row">{escape(part.preset)}<small>{escape(part.data)}</small></th>'
            f'<td class="num">{part.images}</td><td class="num">{100 * (1 - part.flips / part.images):.2f} %</td>'
            f'<td class="num">{part.flips}</td><td class="num">{_count(part.redraw_flips)}</td>'
            f'<td class="num">{int(part.tied.sum())}</td><td class="num"><b>{part.beyond}</b>'
            f"<small>{100 * low:.2g} to {100 * high:.2g} %, allowed {100 * part.allowed:g} %</small></td>"
            f'<td class="num">{accuracy}</td>{_verdict(bool(part))}</tr>'
        )
        if part.images < FEWEST_SHIFTS:
            continue
        name = escape(f"{part.preset}, {part.data}: ")
        plots.append(f"<figure>{histogram(part.margin_shifts, 'logits')}<figcaption>{name}shift of the margin by the "
                     "deployment</figcaption></figure>")  # fmt: skip
        if part.redraw_shifts is not None:
            plots.append(f"<figure>{histogram(part.redraw_shifts, 'logits')}<figcaption>{name}shift of the margin by "
                         "another draw of the noise</figcaption></figure>")  # fmt: skip
    return (
        '<div class="scroll"><table><thead><tr><th>Preset</th><th class="num">Images</th><th class="num">Agreement</th>'
        '<th class="num">Flips</th><th class="num">Redraw flips</th><th class="num">Ties</th>'
        '<th class="num">Beyond both</th><th class="num">Accuracy (reference / deployed)</th><th>Verdict</th></tr>'
        "</thead>"
        f'<tbody>{"".join(lines)}</tbody></table></div><p class="notes">Below the flips beyond redraws and ties: their '
        f'95 % Clopper-Pearson interval.</p><div class="plots">{"".join(plots)}</div>'
    )


def _finding(finding: LayerFinding) -> str:
    plot = ""
    if finding.layers:
        errors = [layer.relative_l2 for layer in finding.layers]
        bounds = [finding.tolerance] * len(errors)
        series = [("relative L2 of the layer", "line0", errors), ("tolerance", "bound", bounds)]
        drawn = log_lines(range(len(errors)), series, "layer, in the order of execution", finding.first)
        plot = f'<div class="plots"><figure>{drawn}</figure></div>'
    return f"<section><h2>Where {escape(finding.graph)} diverges</h2><p>{escape(str(finding))}</p>{plot}</section>"


def _strips(strips: Sequence[Strip]) -> str:
    if not strips:
        return ""
    articles = "".join(
        f"<article class='strip'><h3>{escape(f'{s.preset}, {s.data}, image {s.index}')}</h3>"
        f'<div class="pictures">{"".join(_picture(p) for p in _pictures(s))}</div></article>'
        for s in strips
    )
    return f'<section><h2>Images that differ most</h2><div class="strips">{articles}</div></section>'


def _pictures(strip: Strip) -> list[Picture]:
    apart = np.abs(strip.deployed - strip.reference)
    worst = float(apart.max())
    # A power of ten, so that two strips can be compared.
    gain = 10.0 ** floor(-log10(worst)) if worst > 0.0 else 1.0
    pictures = [
        Picture(strip.image, "input"),
        Picture(strip.reference, "reference", strip.reference_label),
        Picture(strip.deployed, "deployed", strip.deployed_label, strip.deployed_label == strip.reference_label),
        Picture((gain * apart).astype(np.float32), f"difference x {gain:.0e}"),
    ]
    for mask, title in ((strip.reference_mask, "reference mask"), (strip.deployed_mask, "deployed mask")):
        if mask is not None:
            pictures.append(Picture(strip.image, title, mask=mask))
    return pictures


def _picture(picture: Picture) -> str:
    verdict = f"<b>{escape(picture.verdict)}</b>" if picture.verdict else ""
    return (
        f'<figure><img src="{png_data_uri(picture)}" alt="{escape(picture.title)}">'
        f"<figcaption>{escape(picture.title)}{verdict}</figcaption></figure>"
    )


def _tone(level: Level) -> str:
    return {"passed": "good", "failed": "bad"}.get(level.status, "fair")


def _verdict(passed: bool) -> str:
    return '<td class="ok">ok</td>' if passed else '<td class="failed">FAILED</td>'


def _number(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:.3g}"


def _count(value: int | None) -> str:
    return "-" if value is None else str(value)
