"""What can execute a bundle's presets: a deployed engine, and whatever else follows `Executor`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..bundle.manifest import Manifest
from ..images.spec import ImageSpec
from ..methods.presets import Preset
from ..purify.heads import Images
from ..purify.inflight import run_images
from ..purify.masks import middle_mask
from ..purify.purifier import Purifier
from ..rows.noise import SeededNoise
from ..rows.plan import Plan
from ..types import Float32
from .tolerances import loosest

#: States that are kept of one trajectory take at most this many bytes; of longer ones rows are left out evenly.
MAX_STATE_BYTES = 32 << 20


@dataclass(frozen=True)
class PresetRun:
    """What an executor made of a batch with one preset: one purification of each image.

    Attributes:
        purified: ``[B, C, H, W]`` float32 in [0, 1].
        logits: ``[B, N]`` float32, of the purified images; N is 0 without a classifier.
        mask: ``[B, 1, H, W]`` float32 of 0 and 1; None for presets without a mask.
        plans: of each image.
        task: outputs of the task graph on the purified images, by name; none without one that takes images.
    """

    purified: Float32
    logits: Float32
    mask: Float32 | None
    plans: tuple[Plan, ...]
    task: Mapping[str, Float32] = field(default_factory=dict)

    @property
    def labels(self) -> NDArray[np.int64]:
        """``[B]``: the highest logit."""
        labels: NDArray[np.int64] = self.logits.argmax(axis=1)
        return labels


@dataclass(frozen=True)
class Trajectory:
    """One batch along plans that were given.

    Attributes:
        rows: indices of the rows after which the state was kept.
        states: ``[B, rows, C, H, W]`` float32 in model range.
        purified: ``[B, C, H, W]`` float32 in [0, 1].
    """

    rows: tuple[int, ...]
    states: Float32
    purified: Float32


@dataclass(frozen=True)
class FrameRun:
    """What an executor made of frames with one preset, for a task that takes frames: one purification of each.

    Attributes:
        purified: ``[F, C, H, W]`` float32 in [0, 1].
        task: outputs of the task graph on them, by name.
    """

    purified: Float32
    task: Mapping[str, Float32]


class Executor(Protocol):
    """Executes graphs and presets. Noise is seeded: image i of a batch is image i of the stream.

    Attributes:
        name: for reports.
        precision: of its arithmetic; tolerances are those of the less exact side.
    """

    name: str
    precision: str

    def cases(self, graph: str) -> Iterable[Mapping[str, Float32]]:
        """Inputs to compare a graph on, beside the recorded ones."""

    def graph(self, name: str, inputs: Mapping[str, Float32]) -> Mapping[str, Float32]:
        """One call of a graph of the bundle, by the names of its inputs and outputs."""

    def run(self, images: Float32, preset: Preset, seed: int) -> PresetRun:
        """Mask, plan, purification and logits of images ``[B, C, H, W]`` in [0, 1]. A mask of the caller is
        `middle_mask`."""

    def frames(self, frames: Float32, preset: Preset, seed: int) -> FrameRun:
        """Purify frames ``[F, C, H, W]`` in [0, 1] by tiles, and give them to the task."""

    def trajectory(
        self, images: Float32, plans: Sequence[Plan], masks: Float32 | None, seed: int, rows: Sequence[int]
    ) -> Trajectory:
        """Purify along these plans with these masks, and keep the states after these rows, which every plan has."""


def rows_to_keep(count: int, row_bytes: int, most_bytes: int = MAX_STATE_BYTES) -> tuple[int, ...]:
    """Which of ``count`` rows to keep: all, or as many as fit, evenly spread with the first and the last."""
    most = max(2, most_bytes // max(row_bytes, 1))
    return tuple(sorted({round(i) for i in np.linspace(0, count - 1, min(count, most))})) if count else ()


def masks_of_caller(preset: Preset, images: Float32) -> Float32 | None:
    """What stands in for the caller's mask where a preset takes one; None where it does not."""
    if preset.mask is None or preset.mask.source != "caller":
        return None
    return middle_mask(len(images), images.shape[2:])


class _Frames(Images):
    """The purified frames themselves."""

    def image(self, manifest: Manifest) -> ImageSpec:
        return manifest.task_image


class EngineExecutor:
    """A purifier, that is a bundle on an engine."""

    def __init__(self, purifier: Purifier) -> None:
        self.purifier = purifier
        self.name = f"{purifier.provider} {purifier.precision}"
        self.precision = loosest(e.precision for e in purifier.bundle.manifest.graphs_in(purifier.precision).values())

    def cases(self, graph: str) -> Iterable[Mapping[str, Float32]]:
        return ()

    def graph(self, name: str, inputs: Mapping[str, Float32]) -> Mapping[str, Float32]:
        return self.purifier.engine(name).run(inputs)

    def run(self, images: Float32, preset: Preset, seed: int) -> PresetRun:
        once = self.purifier.preset(preset, 1)
        masks = masks_of_caller(once, images)
        results = self.purifier.run_head(Images(), images, once, noise=seed, masks=masks)
        purified = np.stack([result.image for result in results])
        mask: Float32 | None = None
        if preset.mask is not None:
            mask = np.stack([np.zeros(images.shape[2:], bool) if r.mask is None else r.mask for r in results])
            mask = mask[:, None].astype(np.float32)
        planner = self.purifier.planner
        plans = tuple(planner.plan(preset, result.score_norm) for result in results)
        return PresetRun(purified, self.logits(purified), mask, plans, self.task(purified))

    def frames(self, frames: Float32, preset: Preset, seed: int) -> FrameRun:
        once = self.purifier.preset(preset, 1)
        masks = masks_of_caller(once, frames)
        results = self.purifier.run_head(_Frames(), frames, once, noise=seed, masks=masks)
        purified = np.stack([result.image for result in results])
        return FrameRun(purified, self.purifier.graphs.task(purified))

    def task(self, images: Float32) -> dict[str, Float32]:
        """Outputs of the task graph, by name; none without a task."""
        manifest = self.purifier.bundle.manifest
        return {} if manifest.task is None or manifest.framed else self.purifier.graphs.task(images)

    def logits(self, images: Float32) -> Float32:
        """``[B, N]``; N is 0 without a classifier."""
        return self.purifier.logits(images) if self.purifier.classes else np.zeros((len(images), 0), np.float32)

    def trajectory(
        self, images: Float32, plans: Sequence[Plan], masks: Float32 | None, seed: int, rows: Sequence[int]
    ) -> Trajectory:
        source, wanted = SeededNoise(seed), {row: i for i, row in enumerate(rows)}
        states = np.zeros((len(images), len(rows), *images.shape[1:]), np.float32)
        purified = np.zeros_like(images)

        def keep(image: int, row: int, state: Float32) -> None:
            if row in wanted:
                states[image, wanted[row]] = state

        def done(image: int, x: Float32) -> None:
            purified[image] = np.clip(0.5 * x + 0.5, 0.0, 1.0)

        graph = max((plan.graph for plan in plans), default="step")  # the learned one executes all
        run_images(self.purifier.stepper(graph), images, plans, source, done, masks=masks, watch=keep)
        return Trajectory(tuple(rows), states, purified)
