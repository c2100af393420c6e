"""Level 4 of a task: how far two runs agree in the task's own terms.

Of each image the agreement in [0, 1] is

- ``detection``: the panoptic quality of one answer given the other (arXiv 1801.00868): the IoU of the pairs of a class
  that overlap by more than half, over the number of pairs and half of those that have none. A detection without a pair
  whose score is within rounding of the threshold does not count.
- ``segmentation``: the mean IoU over the classes that either answer has. A pixel whose two highest logits are tied does
  not count.
- ``embedding``: the cosine of the two vectors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bundle.task import TaskEntry
from ..purify.boxes import Boxes, iou
from ..purify.tasks import detections, vector_of
from ..types import Float32
from .checks import OutputCheck
from .tolerances import SCORE_ROUNDING, TASK_LOSS, TIE

#: What the agreement of an image is called.
TERMS = {"detection": "box agreement", "segmentation": "mIoU", "embedding": "cosine"}


@dataclass(frozen=True, eq=False)
class TaskAgreement:
    """What a task makes of the images of two runs with the same noise. ``bool``: they agree well enough.

    Attributes:
        preset, data: what was run.
        term: what `agreement` is.
        agreement: ``[N]``, of each image, in [0, 1] (of a cosine from -1).
        redraw: ``[N]``, likewise of one executor with two noises; None if it was not measured.
        allowed: the mean of 1 - agreement may be this much.
        scores: of detectors: the largest difference of the scores of a pair.
    """

    preset: str
    data: str
    term: str
    agreement: NDArray[np.float64]
    redraw: NDArray[np.float64] | None
    allowed: float
    scores: float | None = None

    @property
    def loss(self) -> float:
        """Mean of 1 - agreement."""
        return float(np.mean(1.0 - self.agreement))

    def __bool__(self) -> bool:
        return self.loss <= self.allowed  # NaN is not

    def __str__(self) -> str:
        redraw = "" if self.redraw is None else f" (another draw of the noise: {np.mean(self.redraw):.4f})"
        scores = "" if self.scores is None else f", scores off by at most {self.scores:.2g}"
        return (
            f"{self.preset}, {self.data}: {self.term} {np.mean(self.agreement):.4f} of {len(self.agreement)} images, "
            f"the worst {self.agreement.min():.4f}{redraw}{scores}; at least {1.0 - self.allowed:g} is expected"
        )

    @property
    def check(self) -> OutputCheck:
        """The verdict as one line of a table."""
        worst = float((1.0 - self.agreement).max())
        subject = f"decisions {self.preset} ({self.data})"
        return OutputCheck(subject, f"1 - {self.term}", self.loss, worst, self.allowed)

    def to_json(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "preset": self.preset, "data": self.data, "ok": bool(self), "images": len(self.agreement),
            "term": self.term, "agreement": float(np.mean(self.agreement)), "worst": float(self.agreement.min()),
            "redraw": None if self.redraw is None else float(np.mean(self.redraw)), "allowed": self.allowed,
            "score_difference": self.scores,
        }  # fmt: skip


def compare_task(
    task: TaskEntry,
    preset: str,
    data: str,
    reference: Mapping[str, Float32],
    deployed: Mapping[str, Float32],
    precision: str,
    redraw: tuple[Mapping[str, Float32], Mapping[str, Float32]] | None = None,
) -> TaskAgreement:
    """Compare the outputs of a task graph, batch first, on what two runs made of the same images.

    ``redraw``: those of one executor with two noises.
    """
    margin = SCORE_ROUNDING[precision]
    found = agreements(task, reference, deployed, margin)
    scores = None
    if task.kind == "detection":
        scores = max((_score_difference(*pair) for pair in _boxes(task, reference, deployed)), default=0.0)
    again = None if redraw is None else agreements(task, *redraw, margin)
    return TaskAgreement(preset, data, TERMS[task.kind], found, again, TASK_LOSS[precision], scores)


def agreements(
    task: TaskEntry, first: Mapping[str, Float32], second: Mapping[str, Float32], margin: float = 0.0
) -> NDArray[np.float64]:
    """The agreement of each image, ``[N]``; see the module's text. ``margin``: of scores, around the threshold."""
    if task.kind == "detection":
        return np.array([agreement_of(task, *pair, margin) for pair in _boxes(task, first, second)], np.float64)
    if task.kind == "segmentation":
        found = []
        for one, other in zip(first["logits"], second["logits"], strict=True):
            mine, theirs = one.argmax(axis=0), other.argmax(axis=0)
            two = np.partition(one.astype(np.float64), -2, axis=0)[-2:]
            tied = two[1] - two[0] < TIE * np.maximum(1.0, np.abs(two).max(axis=0))
            found.append(agreement_of(task, mine, np.where(tied, mine, theirs)))
        return np.array(found, np.float64)
    vectors = [[vector_of([one]) for one in outputs["vector"]] for outputs in (first, second)]
    return np.array([agreement_of(task, a, b) for a, b in zip(*vectors, strict=True)], np.float64)


def agreement_of(task: TaskEntry, first: Any, second: Any, margin: float = 0.0) -> float:
    """Of two answers to an image: `Boxes`, label maps ``[H, W]``, or vectors ``[D]`` of length 1."""
    if task.kind == "detection":
        return box_agreement(first, second, task.score + margin)
    if task.kind == "segmentation":
        return map_agreement(first, second)
    return float(first.astype(np.float64) @ second) if first.any() or second.any() else 1.0


def box_agreement(first: Boxes, second: Boxes, sure: float = 0.0) -> float:
    """Panoptic quality of two answers; 1 if both are empty. Of those without a pair only scores from ``sure`` count."""
    pairs = matched(first, second)
    shared = sum(share for _, _, share in pairs)
    alone = 0
    for boxes, mine in ((first, {i for i, _, _ in pairs}), (second, {j for _, j, _ in pairs})):
        alone += sum(boxes.scores[n] >= sure for n in range(len(boxes)) if n not in mine)
    total = len(pairs) + 0.5 * alone
    return shared / total if total else 1.0


def matched(first: Boxes, second: Boxes, least: float = 0.5) -> list[tuple[int, int, float]]:
    """Pairs of the same class with an IoU above ``least``, and it: of each detection the best that is left."""
    if not len(first) or not len(second):
        return []
    shares = np.where(first.labels[:, None] == second.labels[None, :], iou(first.boxes, second.boxes), 0.0)
    pairs, taken = [], set()
    for i in range(len(first)):
        order = [int(j) for j in np.argsort(-shares[i], kind="stable") if int(j) not in taken]
        if order and shares[i, order[0]] > least:
            taken.add(order[0])
            pairs.append((i, order[0], float(shares[i, order[0]])))
    return pairs


def map_agreement(first: NDArray[np.int64], second: NDArray[np.int64]) -> float:
    """Mean IoU of two label maps over the classes that either has."""
    shares = []
    for label in np.union1d(first, second):
        mine, theirs = first == label, second == label
        shares.append((mine & theirs).sum() / (mine | theirs).sum())
    return float(np.mean(shares))


def _boxes(task: TaskEntry, first: Mapping[str, Float32], second: Mapping[str, Float32]) -> list[tuple[Boxes, Boxes]]:
    def of(outputs: Mapping[str, Float32], i: int) -> Boxes:
        return detections(task, [{name: values[i] for name, values in outputs.items()}])

    return [(of(first, i), of(second, i)) for i in range(len(first["boxes"]))]


def _score_difference(first: Boxes, second: Boxes) -> float:
    return max((abs(float(first.scores[i] - second.scores[j])) for i, j, _ in matched(first, second)), default=0.0)
