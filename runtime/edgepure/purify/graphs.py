"""The graphs of a bundle on one engine: opened at first use, used in turn, closed together."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

import numpy as np

from ..bundle.bundle import Bundle
from ..engines.base import Engine, Stepper
from ..engines.host import HostEngine, HostStepper
from ..engines.kinds import kind_of
from ..engines.open import open_engine
from ..errors import BundleError, ConfigError, ProviderError
from ..images.tiles import Tiling
from ..machine.shortage import shortage
from ..methods.presets import MaskSpec, Preset
from ..types import Float32
from .turns import Turns

#: Opens the engine of a graph: (bundle, graph, provider, precision, threads).
Opens = Callable[[Bundle, str, str, str, "int | None"], Engine]


def open_from_bundle(bundle: Bundle, graph: str, provider: str, precision: str, threads: int | None) -> Engine:
    """The engine of a graph as the bundle has it. Raises as `open_engine` does."""
    return open_engine(bundle, graph, provider, precision=precision, threads=threads)


class OpenGraphs:
    """The engines and the banks of slots of a bundle. After `close` the next use opens them anew.

    Attributes:
        bundle, provider, precision, threads, slots, opens: as `Purifier` was given them.
        image_shape: ``(C, H, W)``.
        classes: names, in the order of the logits; none without a classifier.
        planner: from presets to rows.
        turns: who may use the engines at the moment.
    """

    def __init__(
        self, bundle: Bundle, provider: str, precision: str, threads: int | None, slots: int, opens: Opens
    ) -> None:
        self.bundle, self.provider, self.precision, self.slots = bundle, provider, precision, slots
        self.image_shape = bundle.manifest.image.shape
        self.classes = bundle.manifest.classes
        self.planner = bundle.manifest.planner()
        self.turns = Turns()
        self.threads, self.opens = threads, opens
        self._engines: dict[str, Engine] = {}
        self._steppers: dict[str, Stepper] = {}
        self._held: list[tuple[str, int]] = []

    def engine(self, graph: str) -> Engine:
        """The engine of one graph."""
        if graph not in self._engines:
            try:
                self._open(graph)
            except OSError as error:
                raise (shortage(error) or error) from None
        return self._engines[graph]

    def _open(self, graph: str) -> None:
        names = self.bundle.files_of(graph, self.precision)
        held = self.bundle.hold(names)  # what was checked is what is opened, and stays what it is
        try:
            engine = self.opens(self.bundle, graph, self.provider, self.precision, self.threads)
            for handle in self.bundle.hold(names):  # nor was it exchanged meanwhile
                os.close(handle)
        except BaseException:
            for handle in held:
                os.close(handle)
            raise
        self._engines[graph] = engine
        self._held += zip(names, held, strict=True)

    def stepper(self, graph: str) -> Stepper:
        """The bank of slots of a step graph."""
        if graph not in self._steppers:
            self._steppers[graph] = self.engine(graph).stepper(self.slots)
        return self._steppers[graph]

    def whole(self, size: tuple[int, int], preset: Preset) -> Stepper:
        """One slot for a whole frame of this height and width; close it after use.

        Raises:
            ConfigError: the bundle has no graph for that, or not for the preset or the precision (``E-frame-whole``).
            ProviderError: the provider computes at fixed sizes only (``E-provider-any-size``).
        """
        entry = self.bundle.manifest.graphs_in(self.precision).get("step_any")
        if entry is None:
            raise ConfigError(
                "this bundle has no graph for whole frames; export it with any_size (--any-size), or purify by tiles",
                code="E-frame-whole",
            )
        if entry.precision != self.precision:
            raise ConfigError(
                f"the {self.precision} variant has no graph for whole frames; load it in fp32, or purify by tiles",
                code="E-frame-whole",
            )
        if self.planner.plan(preset).learned_variance:
            raise ConfigError(
                "the graph for whole frames has no learned variance; choose variance 'fixed_small', or purify by tiles",
                code="E-frame-whole",
            )
        if not kind_of(self.provider).any_size:
            raise ProviderError(
                f"provider {self.provider!r} computes at fixed sizes; purify the frame by tiles, or load the bundle on "
                "the provider cpu",
                code="E-provider-any-size",
            )
        engine = self.engine("step_any")
        assert isinstance(engine, HostEngine)
        return HostStepper(engine, 1, (self.image_shape[0], *size))

    def step_graph(self, preset: Preset) -> str:
        """The graph that executes the rows of a preset.

        Raises:
            ConfigError: the bundle does not have it, or the preset's parameters do not fit its schedule.
        """
        graph = max(self.planner.plan(stage).graph for stage in preset.stages)  # the learned one executes all rows
        if graph not in self.bundle.manifest.graphs:
            raise ConfigError(
                f"the preset needs the graph {graph!r}, which this bundle does not have; "
                "choose variance 'fixed_small' or export a learned-variance network",
                code="E-config-graph",
            )
        return graph

    def unet_calls(self, preset: Preset) -> int:
        """Of one answer: without a call for the mask, and of a frame for all of its tiles."""
        manifest = self.bundle.manifest
        tiles = len(Tiling(manifest.task_image.shape[1:], self.image_shape[1:], preset.tiles.overlap))
        return self.planner.unet_calls(preset) * tiles

    def logits(self, images: Float32) -> Float32:
        """The plain classifier: ``[B, C, H, W]`` float32 in [0, 1] -> ``[B, N]`` float32.

        Raises:
            ConfigError: the bundle has no classifier.
            ImageError: the batch has another shape or dtype.
        """
        self.bundle.manifest.require_classifier("a label")
        parts = [images[i : i + 64] for i in range(0, len(images), 64)] or [images]
        classes = len(self.classes)
        return np.concatenate(
            [self._run("classifier", {"image": part}, {"logits": (len(part), classes)})["logits"] for part in parts]
        )

    def task(self, images: Float32) -> dict[str, Float32]:
        """The outputs of the task graph, by name, for images ``[B, C, H, W]`` float32 in [0, 1].

        Raises:
            ConfigError: the bundle has no task.
            ImageError: the batch has another shape or dtype.
        """
        self.bundle.manifest.require_task()
        wanted = self.bundle.manifest.graphs["task"].outputs
        found = []
        for part in [images[i : i + 16] for i in range(0, len(images), 16)] or [images]:
            shapes = {t.name: (len(part), *t.fixed) for t in wanted}
            found.append(self._run("task", {"image": part}, shapes))
        return {t.name: np.concatenate([outputs[t.name] for outputs in found]) for t in wanted}

    def attention(self, images: Float32, mask: MaskSpec) -> dict[str, Float32]:
        """Mask ``[B, 1, H, W]`` (0 or 1), fused attention map ``[B, 1, H, W]`` and, with a classifier, logits
        ``[B, N]`` of images ``[B, C, H, W]`` float32 in [0, 1].

        Raises:
            ConfigError: the bundle has no mask graph, or the mask is the caller's.
            ImageError: the batch has another shape or dtype.
        """
        if mask.source == "residual":
            raise ConfigError(
                f"the mask is of the source {mask.source!r}, which needs no attention; see `residual_masks`",
                code="E-mask-source",
            )
        if "mask" not in self.bundle.manifest.graphs:
            raise ConfigError(
                "this bundle has no mask graph; export the classifier, or a backbone, with blocks to tap",
                code="E-config-graph",
            )
        if mask.source == "caller":
            raise ConfigError(
                "the mask is the caller's, so no graph computes it; give it (mask=)", code="E-mask-missing"
            )
        full = np.ones(len(images), np.float32)
        threshold = mask.threshold if mask.threshold is not None else 0.0
        feeds = {
            "image": images,
            "threshold": full * np.float32(threshold),
            "area": full * np.float32(mask.area_input(self.image_shape[1] * self.image_shape[2])),
            "rule": full * np.float32(mask.rule == "softmax"),
        }
        map_shape = (len(images), 1, *self.image_shape[1:])
        shapes: dict[str, tuple[int, ...]] = {"mask": map_shape, "attention": map_shape}
        if self.classes:
            shapes["logits"] = (len(images), len(self.classes))
        return self._run("mask", feeds, shapes)

    def check_files(self) -> None:
        """Raise BundleError if a file of an open engine was written to: engines map their weights, and would use them.

        A bundle that takes the place of this one by a rename does no harm: the old files stay until they are closed.
        """
        for name, handle in self._held:
            if not self.bundle.unchanged(name, handle):
                raise BundleError(
                    f"{self.bundle.path / name} was written to while it was in use; put a new bundle in its place by "
                    "renaming it, and load that",
                    code="E-bundle-written",
                )

    def _run(
        self, graph: str, feeds: Mapping[str, Float32], shapes: Mapping[str, tuple[int, ...]]
    ) -> dict[str, Float32]:
        """One call of a graph; its outputs have these shapes.

        Raises:
            BundleError: they have others, so the graph is not what the bundle says.
            ImageError: an input has another shape or dtype than the graph takes.
        """
        with self.turns.shared():
            self.check_files()
            found = self.engine(graph).run(feeds)
        for name, shape in shapes.items():
            if found[name].shape != shape:
                raise BundleError(
                    f"the graph {graph} gives {name} of the shape {list(found[name].shape)}, expected {list(shape)}; "
                    "export the bundle again",
                    code="E-bundle-graph-output",
                )
        return found

    def close(self) -> None:
        """Give their memory back, when the calls of other threads are done. In a forked process nothing is done: they
        are the parent's."""
        if self.turns.forked:
            return
        with self.turns.alone():
            parts = (*self._steppers.values(), *self._engines.values())
            self._steppers.clear()
            self._engines.clear()
            held, self._held = self._held, []
            for _, handle in held:
                os.close(handle)
            for part in parts:
                part.close()
