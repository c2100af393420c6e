"""What a task makes of purified images: boxes, label maps or vectors; and how the votes of an image decide together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bundle.manifest import Manifest
from ..bundle.task import TASK_OUTPUTS, TaskEntry
from ..errors import ConfigError, NotFiniteError
from ..images.spec import ImageSpec
from ..methods.presets import Preset, VoteSpec
from ..types import Float32
from .boxes import Boxes, fuse, suppress
from .graphs import OpenGraphs
from .heads import Head, Labels
from .results import Purified


@dataclass(frozen=True, eq=False, kw_only=True)
class Detection(Purified):
    """One image, purified, with what was found in it, the surest first.

    Attributes:
        boxes: ``[N, 4]`` float32: left, top, right, bottom in pixels.
        scores: ``[N]`` float32 in [0, 1].
        labels: ``[N]`` int64, indices of classes.
        class_names: their names.
    """

    boxes: Float32
    scores: Float32
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]

    def _answer(self) -> dict[str, Any]:
        return {
            "boxes": [[round(float(v), 3) for v in box] for box in self.boxes],
            "scores": [round(float(s), 6) for s in self.scores],
            "labels": [int(n) for n in self.labels],
            "class_names": list(self.class_names),
        }


@dataclass(frozen=True, eq=False, kw_only=True)
class Segmentation(Purified):
    """One image, purified, with a class for every pixel.

    Attributes:
        label_map: ``[H, W]`` int64, indices of classes.
        confidence: ``[H, W]`` float32, mean softmax of that class over the votes.
        shares: class name to its share of the pixels; classes without any are left out.
    """

    label_map: NDArray[np.int64] = field(repr=False)
    confidence: Float32 = field(repr=False)
    shares: Mapping[str, float]

    def _answer(self) -> dict[str, Any]:
        return {"shares": {name: round(share, 6) for name, share in self.shares.items()}}


@dataclass(frozen=True, eq=False, kw_only=True)
class Embedding(Purified):
    """One image, purified, as a vector.

    Attributes:
        vector: ``[D]`` float32 of length 1.
    """

    vector: Float32 = field(repr=False)

    def _answer(self) -> dict[str, Any]:
        return {"vector": [round(float(v), 7) for v in self.vector]}


class Task(Head[Purified]):
    """The task of a bundle: a `Detection`, `Segmentation` or `Embedding` of each image.

    Raises:
        ConfigError: the bundle has none.
    """

    def __init__(self, graphs: OpenGraphs) -> None:
        self.task = graphs.bundle.manifest.require_task()
        self._graphs = graphs

    def image(self, manifest: Manifest) -> ImageSpec:
        return manifest.task_image

    def check(self, preset: Preset) -> None:
        if preset.votes.sequential is not None:
            raise ConfigError(
                f"sequential votes end when a label is settled, and the task {self.task.kind!r} has none; give a "
                "number of votes",
                code="E-task-votes",
            )

    def read(self, images: Float32) -> Sequence[dict[str, Float32]]:
        """The outputs of the task graph, of each image by name."""
        outputs = self._graphs.task(images)
        return [{name: outputs[name][i] for name in TASK_OUTPUTS[self.task.kind]} for i in range(len(images))]

    def settle(
        self,
        answers: Sequence[dict[str, Float32]],
        votes: VoteSpec,
        common: Mapping[str, Any],
        more: Mapping[str, Any],
    ) -> Purified:
        for outputs in answers:
            for name, values in outputs.items():
                if not np.isfinite(values).all():
                    raise NotFiniteError(
                        f"the task's network gave NaN or infinite {name}; run `edgepure verify` on the bundle",
                        code="E-not-finite-task",
                    )
        if self.task.kind == "detection":
            found = detections(self.task, answers)
            names = tuple(self.task.classes[n] for n in found.labels)
            return Detection(boxes=found.boxes, scores=found.scores, labels=found.labels, class_names=names, **common)
        if self.task.kind == "segmentation":
            label_map, confidence = label_map_of([outputs["logits"] for outputs in answers], votes.rule)
            counts = np.bincount(label_map.ravel(), minlength=len(self.task.classes)) / label_map.size
            shares: dict[str, float] = {}
            for name, share in zip(self.task.classes, counts.tolist(), strict=True):  # two may have one name
                if share > 0:
                    shares[name] = shares.get(name, 0.0) + share
            return Segmentation(label_map=label_map, confidence=confidence, shares=shares, **common)
        return Embedding(vector=vector_of([outputs["vector"] for outputs in answers]), **common)


def detections(task: TaskEntry, votes: Sequence[Mapping[str, Float32]]) -> Boxes:
    """The detections of one image, from the outputs of the task graph on its votes."""
    rules: Any = {"score": task.score, "overlap": task.overlap, "most": task.most}
    return fuse([suppress(outputs["boxes"], outputs["scores"], **rules) for outputs in votes], **rules)


def label_map_of(logits: Sequence[Float32], rule: str) -> tuple[NDArray[np.int64], Float32]:
    """The class of every pixel ``[H, W]`` and its mean softmax, from the logits ``[K, H, W]`` of the votes.

    ``mean``: the highest mean softmax. ``majority``: the class with most votes, ties to the higher mean softmax.
    """
    mean = np.zeros(logits[0].shape, np.float64)
    counts = np.zeros(logits[0].shape, np.float64)
    for one in logits:
        exp = np.exp(one.astype(np.float64) - one.max(axis=0))
        mean += exp / exp.sum(axis=0) / len(logits)
        counts += np.arange(len(one))[:, None, None] == one.argmax(axis=0)
    order = mean if rule == "mean" else counts + 0.5 * mean
    labels: NDArray[np.int64] = order.argmax(axis=0)
    return labels, np.take_along_axis(mean, labels[None], axis=0)[0].astype(np.float32)


def vector_of(vectors: Sequence[Float32]) -> Float32:
    """The mean of vectors ``[D]`` of length 1, made of length 1 again; zeros where there is no direction."""
    total = np.sum([_unit(v.astype(np.float64)) for v in vectors], axis=0)
    return np.asarray(_unit(total), np.float32)


def _unit(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    length = np.linalg.norm(vector)
    return vector / length if length > 0.0 else vector


def head_of(graphs: OpenGraphs) -> Head[Any]:
    """What a bundle is for: labels, or the answer of its task.

    Raises:
        ConfigError: it has neither classifier nor task (``E-no-task``).
    """
    return Labels(graphs) if graphs.classes else Task(graphs)
