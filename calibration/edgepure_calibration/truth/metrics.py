"""mIoU, mAP and recall at 1, each with an interval over images (`edgepure_calibration.bounds`).

It speaks of other images of the same kind, not of another attack.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgepure.bundle.task import TaskEntry
from edgepure.parity.tasks import matched
from edgepure.purify.boxes import Boxes
from edgepure.purify.results import Purified
from edgepure.purify.tasks import Detection, Embedding, Segmentation
from edgepure.types import Float32

from ..bounds import Floats, Metric, metric_high, metric_interval
from .data import Truth


@dataclass(frozen=True)
class Score:
    """A metric of some images in [0, 1].

    Attributes:
        name: mIoU, mAP at 0.5, or recall at 1.
        value: of these images.
        low, high: of the 95 % interval.
        images: their number.
    """

    name: str
    value: float
    low: float
    high: float
    images: int

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} ({100 * self.low:.1f} to {100 * self.high:.1f})"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def mean_iou(answers: NDArray[np.int64], truth: NDArray[np.int64], classes: int) -> Score:
    """Mean over the classes of the intersection over the union of all images together.

    Args:
        answers, truth: ``[N, H, W]``; pixels whose truth is -1 do not count, nor do classes that neither has.
    """
    return _score("mIoU", iou_of(answers, truth, classes), len(truth))


def iou_of(answers: NDArray[Any], truth: NDArray[Any], classes: int) -> Metric:
    """As `mean_iou`, of weighed images."""
    both, either = np.zeros((len(truth), classes)), np.zeros((len(truth), classes))
    counts = truth >= 0
    for label in range(classes):
        mine, theirs = (answers == label) & counts, truth == label
        both[:, label] = (mine & theirs).sum(axis=(1, 2))
        either[:, label] = (mine | theirs).sum(axis=(1, 2))

    def of(weights: Floats) -> float:
        union = weights @ either
        known = union > 0
        return float(((weights @ both)[known] / union[known]).mean()) if known.any() else 1.0

    return of


def mean_average_precision(answers: Sequence[Boxes], truth: Sequence[Boxes], least: float = 0.5) -> Score:
    """Mean over the classes of the area under the precision-recall curve (all points), as VOC counts since 2010.

    A detection is right if it is the best left for a true box of its class with an IoU above ``least``; the surest
    choose first.
    """
    return _score(f"mAP at {least:g}", precision_of(answers, truth, least), len(truth))


def precision_of(answers: Sequence[Boxes], truth: Sequence[Boxes], least: float = 0.5) -> Metric:
    """As `mean_average_precision`, of weighed images."""
    # of each class: the true boxes of each image, and the detections, the surest first: their image, and whether right
    classes = sorted({int(n) for t in truth for n in t.labels})
    right = [{i for i, _, _ in matched(mine, theirs, least)} for mine, theirs in zip(answers, truth, strict=True)]
    tables = []
    for label in classes:
        rows = [
            (-mine.scores[i], image, i in right[image])
            for image, mine in enumerate(answers)
            for i in np.flatnonzero(mine.labels == label)
        ]
        table = np.array(sorted(rows, key=lambda row: row[0])).reshape(-1, 3)
        counts = np.array([(t.labels == label).sum() for t in truth])
        tables.append((counts, table[:, 1].astype(np.intp), table[:, 2]))

    def of(weights: Floats) -> float:
        areas = [
            _average_precision(weights[images], hits, total)
            for counts, images, hits in tables
            if (total := float(weights @ counts))
        ]
        return float(np.mean(areas)) if areas else 1.0

    return of


def recall_at_1(queries: Float32, gallery: Float32, labels: NDArray[np.int64], *, own: bool) -> Score:
    """Share of the queries whose nearest vector of the gallery (by cosine) is of the same label.

    Args:
        queries, gallery: ``[N, D]`` of length 1; row i of both is of the same image.
        own: True asks for the image itself; False leaves it out, and asks for another one of its label.
    """
    return _score("recall at 1", _recall(queries, labels, gallery, labels, leave_out=not own), len(labels))


def _recall(
    queries: Float32, labels: NDArray[np.int64], gallery: Float32, theirs: NDArray[np.int64], *, leave_out: bool
) -> Metric:
    near = queries.astype(np.float64) @ gallery.astype(np.float64).T
    if leave_out:
        np.fill_diagonal(near, -np.inf)
    hits = theirs[near.argmax(axis=1)] == labels
    return lambda weights: float(weights @ hits / weights.sum())


@dataclass(frozen=True, eq=False)
class Gallery:
    """Vectors that are searched: ``[N, D]`` of length 1, and whose they are, ``[N]``. ``same``: row i is of the same
    image as query i, which is left out."""

    vectors: Float32
    labels: NDArray[np.int64]
    same: bool


#: What the metric of a task is called.
NAMES = {"segmentation": "mIoU", "detection": "mAP at 0.5", "embedding": "recall at 1"}


def counted(answer: Purified) -> Any:
    """What is counted of an answer: its label map, its `Boxes`, or its vector."""
    if isinstance(answer, Segmentation):
        return answer.label_map
    if isinstance(answer, Embedding):
        return answer.vector
    assert isinstance(answer, Detection)
    return Boxes(answer.boxes, answer.scores, answer.labels)


def metric_of(task: TaskEntry, truth: Truth, answers: Sequence[Any], gallery: Gallery | None = None) -> Metric:
    """The metric of a task's answers, one for each image, as `counted` gives them. Vectors are searched for in
    ``gallery``."""
    if task.kind == "segmentation":
        return iou_of(np.stack(answers), truth.labels, len(task.classes))
    if task.kind == "embedding":
        assert gallery is not None
        return _recall(np.stack(answers), truth.labels, gallery.vectors, gallery.labels, leave_out=gallery.same)
    assert truth.boxes is not None
    true = []
    for boxes, labels in zip(truth.boxes, truth.labels, strict=True):
        there = labels >= 0
        true.append(Boxes(boxes[there], np.ones(int(there.sum()), np.float32), labels[there]))
    return precision_of(answers, true)


def score_of(task: TaskEntry, truth: Truth, answers: Sequence[Any], gallery: Gallery | None = None) -> Score:
    """`metric_of` with its interval."""
    return _score(NAMES[task.kind], metric_of(task, truth, answers, gallery), len(truth))


def lost(before: Sequence[Metric], after: Sequence[Metric], count: int) -> tuple[float, float, float]:
    """The mean of metrics before and after a change, and the upper end of the 95 % bound (one-sided, over the
    ``count`` images) of what the change loses."""

    def mean(metrics: Sequence[Metric], weights: Floats) -> float:
        return float(np.mean([metric(weights) for metric in metrics]))

    high = metric_high(lambda weights: mean(before, weights) - mean(after, weights), count)
    return mean(before, np.ones(count)), mean(after, np.ones(count)), high


def _average_precision(weights: Floats, hits: Floats, total: float) -> float:
    """Of detections of a class, the surest first, of images that weigh so much; ``total``: of the true boxes."""
    right = (weights * hits).cumsum()
    precision = right / weights.cumsum()
    best = np.maximum.accumulate(precision[::-1])[::-1]  # at this recall or above
    return float((best * weights * hits).sum() / total)


def _score(name: str, of: Metric, count: int) -> Score:
    return Score(name, of(np.ones(count)), *metric_interval(of, count), count)
