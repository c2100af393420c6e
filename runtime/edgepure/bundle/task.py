"""What a bundle does with purified images, where that is no label: the typed `task` of the manifest.

The graph ``task`` takes images and gives what its kind asks for. Batch first, float32, sizes fixed:

- ``detection``: ``boxes [B, N, 4]`` (left, top, right, bottom in pixels of the image) and ``scores [B, N, K]`` in
  [0, 1] of N candidates for K classes, before any suppression. The runtime suppresses and cuts.
- ``segmentation``: ``logits [B, K, H, W]`` of K classes for every pixel of the image.
- ``embedding``: ``vector [B, D]``; the runtime gives it the length 1.

The images are those of the bundle, or frames of a size of their own, which the diffusion model purifies by tiles.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ..errors import ConfigError
from ..validation import Entry

TaskKind = Literal["detection", "segmentation", "embedding"]
TASK_KINDS: tuple[TaskKind, ...] = ("detection", "segmentation", "embedding")
#: Pixels of a frame's side at most.
MOST_FRAME = 16384
Side = Annotated[int, Field(ge=1, le=MOST_FRAME)]
#: The outputs of the task graph, in order.
TASK_OUTPUTS: dict[TaskKind, tuple[str, ...]] = {
    "detection": ("boxes", "scores"),
    "segmentation": ("logits",),
    "embedding": ("vector",),
}


class TaskEntry(Entry):
    """The task of a bundle that has no classifier."""

    kind: TaskKind
    classes: tuple[str, ...] = Field(
        (), description="names in the order of the scores or logits; at least 1 of a detector, 2 of a segmenter"
    )
    outputs: dict[str, str] = Field(
        default_factory=dict, description="what outputs are called in the network that was exported, where otherwise"
    )
    score: float = Field(0.25, ge=0.0, le=1.0, description="of a detector: candidates with less are no detections")
    overlap: float = Field(
        0.5, gt=0.0, le=1.0, description="of a detector: of two boxes of a class with a larger IoU the better one stays"
    )
    frame: tuple[Side, Side] | None = Field(
        None,
        description="height and width of the images that the task takes, where they are larger than the network's: "
        "such frames are purified by tiles; null: those of `image`",
    )
    most: int = Field(100, ge=1, le=10_000, description="of a detector: detections of an image at most")

    @model_validator(mode="after")
    def _has_classes(self) -> TaskEntry:
        least = {"detection": 1, "segmentation": 2, "embedding": 0}[self.kind]
        if len(self.classes) < least or (self.kind == "embedding" and self.classes):
            expected = "none" if self.kind == "embedding" else f"at least {least}"
            raise ConfigError(
                f"task {self.kind!r} has {len(self.classes)} classes, expected {expected}", code="E-task-classes"
            )
        return self

    def fault(self, outputs: tuple[tuple[str, tuple[int, ...]], ...], size: tuple[int, int]) -> str | None:
        """What is wrong with these outputs of the task graph (name, shape without the batch); None: nothing."""
        shapes = dict(outputs)
        k = len(self.classes)
        if tuple(name for name, _ in outputs) != TASK_OUTPUTS[self.kind]:
            return f"its outputs are called {', '.join(shapes) or 'nothing'}"
        if self.kind == "segmentation":
            return None if shapes["logits"] == (k, *size) else f"logits are {list(shapes['logits'])} for {k} classes"
        if self.kind == "embedding":
            return None if len(shapes["vector"]) == 1 else f"vector is {list(shapes['vector'])}"
        boxes, scores = shapes["boxes"], shapes["scores"]
        if len(boxes) != 2 or boxes[1] != 4 or scores != (boxes[0], k):
            return f"boxes are {list(boxes)} and scores {list(scores)} for {k} classes"
        return None

    @property
    def wanted(self) -> str:
        """The outputs in words."""
        k = len(self.classes)
        return {
            "detection": f"boxes [batch, N, 4] and scores [batch, N, {k}]",
            "segmentation": f"logits [batch, {k}, height, width]",
            "embedding": "vector [batch, D]",
        }[self.kind]
