"""Batches ``[B, C, H, W]`` float32 in [0, 1] on an open bundle: purified, classified, or only measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, NotFiniteError
from ..methods import EpsSpec
from ..methods.presets import MaskSpec, Preset
from ..rows.noise import NoiseSource, noise_source
from ..rows.plan import Plan
from ..types import Float32, Progress
from ..validation import expect
from .answered_frames import answer_frames
from .arguments import Reading, check_ids, check_images, failures_of, masks_of
from .core import OpenBundle
from .heads import Head, Images, Labels, P
from .inflight import run_images
from .masks import caller_masks
from .monitor import Monitor
from .request import Request
from .results import Result, Results
from .tasks import head_of
from .track import Track


class Batches(OpenBundle):
    """An open bundle that runs batches, one thread after another."""

    def run(
        self,
        images: Float32,
        preset: str | Preset | Mapping[str, Any] | None = None,
        *,
        votes: int | None = None,
        noise: NoiseSource | int | None = None,
        names: Sequence[str] | None = None,
        ids: Sequence[int] | None = None,
        on_progress: Progress | None = None,
        on_rows: Callable[[int], None] | None = None,
        monitor: Monitor | None = None,
        masks: Float32 | None = None,
        track: Track | None = None,
    ) -> Results[Result]:
        """`classify` for images that are already ``[B, C, H, W]`` float32 in [0, 1].

        ``names``, ``ids``: of each image in the results and in the noise stream; None: 0, 1, 2, ... ``on_rows`` is
        called after every UNet call with the number of rows that it executed: a finer progress. What it or
        ``on_progress`` raises ends the call and is raised here; the next call is not affected. ``masks``: ``[B, 1, H,
        W]`` float32 of 0 and 1. ``track``: of one image, as for `stream`.

        Raises:
            ImageError: the batch has another shape or dtype, or NaN.
            ConfigError: as `classify`.
            NotFiniteError: the model gave NaN or infinite values.
        """
        return self.run_head(
            Labels(self.graphs), images, self.preset(preset, votes), noise=noise, names=names, ids=ids,
            on_progress=on_progress, on_rows=on_rows, monitor=monitor, masks=masks, track=track,
        )  # fmt: skip

    def run_head(
        self,
        head: Head[P],
        images: Float32,
        preset: Preset,
        *,
        noise: NoiseSource | int | None = None,
        names: Sequence[str] | None = None,
        ids: Sequence[int] | None = None,
        on_progress: Progress | None = None,
        on_rows: Callable[[int], None] | None = None,
        monitor: Monitor | None = None,
        masks: Float32 | None = None,
        track: Track | None = None,
    ) -> Results[P]:
        """`run` with another answer than labels: what ``head`` makes of the purified images."""
        expect(
            names=(names, Sequence, None), on_progress=(on_progress, Callable, None), on_rows=(on_rows, Callable, None)
        )
        shape, source = head.image(self.bundle.manifest).shape, noise_source(noise)
        check_images(images, shape)
        check_ids(ids, len(images))
        if masks is not None:
            masks = caller_masks(masks, len(images), shape[1:])
        if monitor is not None:
            self.bundle.manifest.require_slots("a monitor")
        with self._turn(preset):
            if shape != self.image_shape:
                results, self.counters = answer_frames(
                    self.graphs, head, images, preset, source, names, ids, on_progress, on_rows, masks, track
                )
                return results
            sources = [source] * len(images)
            request = Request(
                self.graphs, images, preset, head, sources, names, ids, on_progress, monitor, masks=masks, track=track
            )
            results = request.results(on_rows)
            self.counters = request.counters
            return results

    def _load_and_run(
        self,
        head: Head[P],
        images: Any,
        preset: Preset,
        noise: NoiseSource | int | None,
        mask: Any,
        reading: Reading,
        on_progress: Progress | None,
        monitor: Monitor | None = None,
    ) -> Results[P]:
        """`run_head` for images of any kind, and the caller's mask in any shape."""
        image = head.image(self.bundle.manifest)
        loaded = reading.load(images, image)
        results = self.run_head(
            head,
            loaded.images,
            preset,
            noise=noise,
            names=loaded.names,
            ids=loaded.indices,
            on_progress=on_progress,
            monitor=monitor,
            masks=masks_of(mask, loaded, image.shape[1:]),
        )
        return Results(results, failures_of(loaded))

    def task_head(self) -> Head[Any]:
        """What the bundle is for: labels, or the answer of its task.

        Raises:
            ConfigError: it has neither classifier nor task (``E-no-task``).
        """
        return head_of(self.graphs)

    def own_head(self) -> Head[Any]:
        """What `purify` makes of images: labels, if there is a classifier."""
        return Labels(self.graphs) if self.classes else Images()

    def logits(self, images: Float32) -> Float32:
        """The plain classifier, without purification: ``[B, C, H, W]`` float32 in [0, 1] -> ``[B, N]`` float32.

        Raises:
            ConfigError: the bundle has none.
            ImageError: the batch has another shape or dtype.
        """
        check_images(images, self.image_shape)
        return self.graphs.logits(images)

    def attention(self, images: Float32, mask: MaskSpec) -> dict[str, Float32]:
        """Mask ``[B, 1, H, W]`` (0 or 1), fused attention map ``[B, 1, H, W]`` and, with a classifier, logits
        ``[B, N]`` of images ``[B, C, H, W]`` float32 in [0, 1].

        Raises:
            ConfigError: the bundle has no mask graph, or the mask is the caller's.
            ImageError: the batch has another shape or dtype.
        """
        check_images(images, self.image_shape)
        expect(mask=(mask, MaskSpec))
        return self.graphs.attention(images, mask)

    def score_norms(
        self,
        images: Float32,
        preset: str | Preset | Mapping[str, Any] | EpsSpec,
        noise: NoiseSource | int | None = None,
        *,
        ids: Sequence[int] | None = None,
    ) -> NDArray[np.float64]:
        """Score norms ``[B]`` of images ``[B, C, H, W]`` in [0, 1] with a probe, or with that of an SSNI preset.

        ``ids``: which images of the noise stream they are; None: 0, 1, 2, ...

        Raises:
            ConfigError: the preset has no SSNI, or the probe does not fit the schedule.
        """
        if isinstance(preset, EpsSpec):
            probe: Plan | None = self.planner.rows(preset)
        else:
            probe = self.planner.probe(self.preset(preset))
        if probe is None:
            raise ConfigError(
                "the preset has no SSNI, so it has no probe to measure score norms with", code="E-probe-missing"
            )
        check_images(images, self.image_shape)
        check_ids(ids, len(images))
        norms = np.zeros(len(images))

        def done(image: int, x: Float32) -> None:
            norms[image] = np.linalg.norm(x.astype(np.float64))

        with self.turns.alone():
            plans = [probe] * len(images)
            run_images(self.stepper("step"), images, plans, noise_source(noise), done, ids=ids, probe=True)
        return norms

    @contextmanager
    def _turn(self, preset: Preset) -> Iterator[None]:
        """The engines, for one run of a preset; what it raises names the preset."""
        with self.turns.alone():
            try:
                yield
            except NotFiniteError as error:
                raise self.explained(error, preset) from None

    def explained(self, error: NotFiniteError, preset: Preset) -> NotFiniteError:
        """The error with the preset's name, and with what to do about the variant."""
        return NotFiniteError(f"{self._called(preset)}{error}{self._advice()}", code=error.code)

    def _called(self, preset: Preset) -> str:
        """``preset NAME: `` of a preset of the bundle, whatever its votes."""
        votes = {"votes": preset.votes}
        same = [name for name, mine in self.presets.items() if mine.model_copy(update=votes) == preset]
        return f"preset {same[0]}: " if same else ""

    def _advice(self) -> str:
        """What to do about values that are not finite, where it is the variant's doing."""
        if self.precision == "fp32":
            return ""
        return (
            f". This is the {self.precision} variant: use precision fp32, or make the variant anew with the layers "
            "that overflow kept in fp32 (`edgepure quantize --keep LAYER`)"
        )
