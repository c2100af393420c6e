"""An evaluation of a task as one HTML page: what is left with intervals, pictures, and the protocol."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from edgepure.purify.boxes import Boxes
from edgepure.report.answers import outlines, painted
from edgepure.report.page import Card, Cards, Cell, Notes, Section, Strip, Strips, Table, Verdict, page, write_page
from edgepure.report.pictures import Picture
from edgepure.types import Float32

from ..truth.metrics import Score
from .run import SHOWN, Row, TaskEvaluated


def write_report(found: TaskEvaluated, path: str | PathLike[str]) -> Path:
    """Write the page, whole or not at all.

    Raises:
        EdgepureError: the file cannot be written.
    """
    return write_page(path, render(found), "--report")


def render(found: TaskEvaluated) -> str:
    """The page as UTF-8 text."""
    title = f"Robustness of {found.bundle}"
    sections = [
        _headline(title, found),
        _table(found),
        _pictures(found),
        Section("What was not tested", parts=[Notes(found.not_tested())]),
        Section("Protocol", parts=[Notes(found.protocol)]),
    ]
    return page(title, sections, found.facts)


def columns(found: TaskEvaluated) -> tuple[str, ...]:
    """Of the table, here and on the card."""
    name = found.rows[0].clean.name
    return ("preset", "UNet calls", f"{name}, clean", "attacked without it", "attacked through it")


def _headline(title: str, found: TaskEvaluated) -> Section:
    plain, defended = found.rows[0], found.rows[1:]
    cards = [
        Card(row.preset or "", _percent(row.left), f"attacked; clean {_percent(row.clean)}", _tone(row))
        for row in defended
    ]
    best = max(defended, key=lambda row: row.left.value)
    name = best.left.name
    verdict = Verdict(
        f"{best.preset} keeps {best.left} % {name} under the worse of two attacks, without it and through it (95 % "
        f"interval); without a purification {plain.attacked} % are left of {plain.clean} %",
        _tone(best),
    )
    words = (
        f"{len(found.truth)} images, task {found.kind}. Attacks by the exact gradients of the bundle's own graphs; "
        f"every number was answered by the deployed graphs ({found.facts['engine']}), with noise that the attacker has "
        "not."
    )
    return Section(title, [words], [Cards([Card("no purification", _percent(plain.attacked), f"attacked; clean "
                   f"{_percent(plain.clean)}", "bad"), *cards])], verdict, top=True)  # fmt: skip


def _table(found: TaskEvaluated) -> Section:
    rows: list[list[str | Cell]] = [
        [row.preset or "none", str(row.unet_calls), *(_cell(s) for s in (row.clean, row.transferred, row.attacked))]
        for row in found.rows
    ]
    words = (
        "In percent, with 95 % intervals over images. Attacked without it: on the task alone. Attacked "
        "through it: by the gradient of the purification and the task together."
    )
    names = columns(found)
    return Section("What is left", [words], [Table.of(names, rows, right=names[1:])])


def _cell(score: Score) -> Cell:
    return Cell(f"{100 * score.value:.1f}", [f"{100 * score.low:.1f} to {100 * score.high:.1f}"])


def _percent(score: Score) -> str:
    return f"{100 * score.value:.1f} %"


def _tone(row: Row) -> str:
    share = row.left.value / max(row.clean.value, 1e-9)
    return "good" if share >= 0.8 else "fair" if share >= 0.5 else "bad"


def _pictures(found: TaskEvaluated) -> Section:
    """The first images: the truth, then for each defence the attacked image, what the task was shown, its answer."""
    truth, strips = found.truth, []
    for i in range(min(SHOWN, len(truth))):
        image = truth.images[i]
        pictures = [Picture(image, "clean"), *_answer(_true(found, i), image, "the truth")]
        for row in found.rows:
            name = row.preset or "no purification"
            attacked = found.images[row.preset or "plain"][i]
            answer, shown = row.seen[i]
            pictures.append(Picture(attacked, f"attacked: {name}"))
            if row.preset is not None:
                pictures.append(Picture(shown, "purified"))
            pictures += _answer(answer, shown, f"answer: {name}")
        strips.append(Strip(f"image {i}", pictures))
    words = "Attacked images as the engine gets them, and what the task makes of them."
    return Section("Pictures", [words], [Strips(strips, wide=True)])


def _true(found: TaskEvaluated, image: int) -> Any:
    truth = found.truth
    if found.kind == "segmentation":
        return truth.labels[image]
    if truth.boxes is None:
        return None
    there = truth.labels[image] >= 0
    return Boxes(truth.boxes[image][there], np.ones(int(there.sum()), np.float32), truth.labels[image][there])


def _answer(answer: Any, image: Float32, title: str) -> list[Picture]:
    """Of a vector there is no picture."""
    if isinstance(answer, Boxes):
        size = (image.shape[1], image.shape[2])
        return [Picture(image, title, mask=outlines(answer.boxes, size))]
    if isinstance(answer, np.ndarray) and answer.ndim == 2:
        return [Picture(painted(answer), title)]
    return []
