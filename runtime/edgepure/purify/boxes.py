"""Boxes: how much two overlap, which of many stay, and what several purifications of an image say together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..types import Float32


@dataclass(frozen=True, eq=False)
class Boxes:
    """Detections of one image, the surest first.

    Attributes:
        boxes: ``[N, 4]`` float32: left, top, right, bottom in pixels.
        scores: ``[N]`` float32 in [0, 1].
        labels: ``[N]`` int64, indices of classes.
    """

    boxes: Float32
    scores: Float32
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, index: NDArray[np.intp]) -> Boxes:
        """Those at these positions."""
        return Boxes(self.boxes[index], self.scores[index], self.labels[index])


def iou(first: Float32, second: Float32) -> Float32:
    """Intersection over union of boxes ``[N, 4]`` and ``[M, 4]``: ``[N, M]`` in [0, 1]. Empty boxes have none."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    inside = np.clip(high - low, 0.0, None).prod(axis=2)
    areas = [np.clip(boxes[:, 2:] - boxes[:, :2], 0.0, None).prod(axis=1) for boxes in (first, second)]
    union = areas[0][:, None] + areas[1][None, :] - inside
    return np.asarray(np.divide(inside, union, out=np.zeros_like(inside), where=union > 0.0), np.float32)


def suppress(boxes: Float32, scores: Float32, *, score: float, overlap: float, most: int) -> Boxes:
    """Detections among candidates: each class by itself, a box stays unless a better one overlaps it too much.

    Args:
        boxes: ``[N, 4]``.
        scores: ``[N, K]``; a candidate may be a detection of several classes.
        score: candidates of a class with less are left out.
        overlap: largest IoU of two detections of a class.
        most: detections at most.
    """
    rows, labels = np.nonzero(scores >= score)
    values = scores[rows, labels]
    order = np.argsort(-values, kind="stable")
    rows, labels, values = rows[order], labels[order], values[order]
    kept: list[int] = []
    left = np.ones(len(rows), bool)  # an image can be made so that every candidate counts
    while len(kept) < most and left.any():
        i = int(left.argmax())
        kept.append(i)
        left[i] = False
        same = np.flatnonzero(left & (labels == labels[i]))
        left[same[iou(boxes[rows[i]][None], boxes[rows[same]])[0] > overlap]] = False
    index = np.array(kept, np.intp)
    return Boxes(boxes[rows[index]], values[index], labels[index].astype(np.int64))


def fuse(votes: list[Boxes], *, score: float, overlap: float, most: int) -> Boxes:
    """What several purifications of an image say together (weighted boxes fusion, arXiv 1910.13302).

    Boxes of a class that overlap by more than ``overlap`` are one: its corners are their mean by score, its score the
    sum of theirs over the number of votes, of each vote the best one. What only few votes see so loses its score.
    """
    if len(votes) == 1:
        return votes[0]
    every = Boxes(
        np.concatenate([v.boxes for v in votes]),
        np.concatenate([v.scores for v in votes]),
        np.concatenate([v.labels for v in votes]),
    )
    voter = np.repeat(np.arange(len(votes)), [len(v) for v in votes])
    clusters: list[list[int]] = []
    centres: list[Float32] = []
    for i in np.argsort(-every.scores, kind="stable"):
        same = [c for c, members in enumerate(clusters) if every.labels[members[0]] == every.labels[i]]
        shares = iou(every.boxes[i][None], np.stack([centres[c] for c in same]))[0] if same else np.zeros(0)
        if len(shares) and shares.max() > overlap:
            found = same[int(shares.argmax())]
            if voter[i] in voter[clusters[found]]:
                continue  # its better box of the same vote counts
            clusters[found].append(int(i))
            weights = every.scores[clusters[found]]
            centres[found] = np.average(every.boxes[clusters[found]], axis=0, weights=weights).astype(np.float32)
        else:
            clusters.append([int(i)])
            centres.append(every.boxes[i])
    if not clusters:
        return every
    scores = np.array([every.scores[members].sum() / len(votes) for members in clusters], np.float32)
    labels = np.array([every.labels[members[0]] for members in clusters], np.int64)
    fused = Boxes(np.stack(centres).astype(np.float32), scores, labels)
    order = np.argsort(-scores, kind="stable")
    return fused.take(order[scores[order] >= score][:most])
