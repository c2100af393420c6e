"""One purification request: masks and probes on the way in, votes and labels on the way out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, ImageError
from ..methods.presets import Preset
from ..rows.noise import NoiseSource
from ..rows.plan import Plan
from .inflight import InFlight, Job
from .monitor import Monitor, reference_of
from .results import Result, Results, decide

if TYPE_CHECKING:
    from .purifier import Purifier

Float32 = NDArray[np.float32]

#: Called with (images finished, images in all).
Progress = Callable[[int, int], None]


@dataclass
class ImageState:
    """What is known of one image while it is being done."""

    ref: Float32
    mask: Float32 | None
    plan: Plan | None = None
    score_norm: float | None = None
    p_value: float | None = None
    flagged: bool | None = None
    plain_label: int | None = None
    unet_calls: int = 0
    started: float = 0.0
    seconds: float = 0.0
    purified: dict[int, Float32] = field(default_factory=dict)
    logits: dict[int, Float32] = field(default_factory=dict)


class Request:
    """One call of `Purifier.run`. ``sources``: of each image the source of its noise, of which it is image ``ids``."""

    def __init__(
        self,
        purifier: Purifier,
        images: Float32,
        preset: Preset,
        sources: Sequence[NoiseSource],
        names: Sequence[str] | None,
        ids: Sequence[int] | None,
        on_progress: Progress | None,
        monitor: Monitor | None = None,
    ) -> None:
        check_images(images, purifier.image_shape)
        for what, given in (("names", names), ("ids", ids)):
            if given is not None and len(given) != len(images):
                raise ConfigError(f"{len(given)} {what} for {len(images)} images; give one for each")
        self._purifier, self._images, self._preset, self._sources = purifier, images, preset, sources
        self._ids = ids if ids is not None else range(len(images))
        self._names = names if names is not None else [str(i) for i in self._ids]
        self._progress = on_progress
        self._chunk = max(purifier.slots, 16)
        self._left = len(images) * preset.votes.count
        self._state: dict[int, ImageState] = {}
        self._to_classify: list[tuple[int, int]] = []
        self._results: dict[int, Result] = {}
        self._monitor = monitor
        extra = monitor.probe if monitor is not None and preset.ssni is None else None
        spec = preset.ssni.probe if preset.ssni is not None else extra
        self._probe = None if spec is None else purifier.planner.rows(spec)
        self._monitor_calls = 0 if extra is None else extra.unet_calls
        calibration = purifier.bundle.manifest.calibration
        self._reference = None if spec is None else reference_of(calibration, spec, purifier.precision)
        if monitor is not None:
            monitor.check(spec, self._reference)

    def results(self, on_rows: Callable[[int], None] | None = None) -> Results:
        """Run it alone, and wait for it."""
        inflight = InFlight(self._purifier.stepper(step_graph(self._purifier, self._preset)))
        inflight.run(self.jobs(), self.done, on_rows)
        self._purifier.counters = inflight.counters
        return Results(self._results[i] for i in range(len(self._images)))

    def result(self, index: int) -> Result | None:
        """The result of an image; None as long as it is not classified."""
        return self._results.get(index)

    def jobs(self) -> Iterator[Job]:
        """Jobs in the order of the images; masks are computed for a chunk of images at a time."""
        for start in range(0, len(self._images), self._chunk):
            chunk = self._images[start : start + self._chunk]
            masks: Float32 | None = None
            plain: NDArray[np.int64] | None = None
            if self._preset.mask is not None:
                seen = self._purifier.attention(chunk, self._preset.mask)
                masks, plain = seen["mask"], seen["logits"].argmax(axis=1)
            for offset, image in enumerate(chunk):
                index = start + offset
                state = ImageState(2.0 * image - 1.0, None if masks is None else masks[offset])
                if plain is not None:
                    state.plain_label = int(plain[offset])
                state.started = perf_counter()
                self._state[index] = state
                if self._probe is None:
                    yield from self._votes(index, self._purifier.planner.plan(self._preset))
                else:
                    state.unet_calls = self._probe.unet_calls
                    noise = self._sources[index].for_image(
                        self._probe, self._ids[index], 0, None, self._purifier.image_shape, probe=True
                    )
                    yield Job(self._probe, noise, state.ref, None, tag=(index, -1))

    def _votes(self, index: int, plan: Plan) -> Iterator[Job]:
        state = self._state[index]
        state.plan = plan
        for vote in range(self._preset.votes.count):
            noise = self._sources[index].for_image(plan, self._ids[index], vote, state.mask, self._purifier.image_shape)
            yield Job(plan, noise, state.ref, state.mask, tag=(index, vote))

    def done(self, job: Job, x: Float32) -> Iterator[Job] | None:
        """Take the result of a job; after a probe, the jobs that follow from it."""
        index, vote = job.tag
        state = self._state[index]
        if vote < 0:
            state.score_norm = float(np.linalg.norm(x.astype(np.float64)))
            if self._reference is not None:
                state.p_value = self._reference.p_value(state.score_norm)
                if self._monitor is not None:
                    state.flagged = self._monitor.see(state.p_value, self._monitor_calls)
            return self._votes(index, self._purifier.planner.plan(self._preset, state.score_norm))
        state.unet_calls += job.plan.unet_calls
        state.purified[vote] = np.clip(0.5 * x + 0.5, 0.0, 1.0)
        self._to_classify.append((index, vote))
        self._left -= 1
        if len(self._to_classify) >= self._chunk or not self._left:
            self._classify()
        return None

    def flush(self) -> None:
        """Classify what has been purified by now."""
        if self._to_classify:
            self._classify()

    def _classify(self) -> None:
        batch = np.stack([self._state[i].purified[v] for i, v in self._to_classify])
        for (index, vote), row in zip(self._to_classify, self._purifier.logits(batch), strict=True):
            state = self._state[index]
            state.logits[vote] = row
            if vote > 0:
                del state.purified[vote]
            if len(state.logits) == self._preset.votes.count:
                self._finish(index, state)
        self._to_classify.clear()

    def _finish(self, index: int, state: ImageState) -> None:
        logits = np.stack([state.logits[v] for v in sorted(state.logits)])
        label, probabilities, vote_labels = decide(logits, self._preset.votes.rule)
        assert state.plan is not None
        self._results[index] = Result(
            name=self._names[index],
            label=label,
            class_name=self._purifier.classes[label],
            probabilities=probabilities,
            vote_labels=vote_labels,
            plain_label=state.plain_label,
            levels=dict(state.plan.levels),
            score_norm=state.score_norm,
            p_value=state.p_value,
            flagged=state.flagged,
            mask=None if state.mask is None else state.mask[0] > 0.5,
            unet_calls=state.unet_calls,
            seconds=perf_counter() - state.started,
            image=state.purified[0],
        )
        del self._state[index]
        if self._progress is not None:
            self._progress(len(self._results), len(self._images))


def step_graph(purifier: Purifier, preset: Preset) -> str:
    """The graph that executes the rows of a preset.

    Raises:
        ConfigError: the bundle does not have it, or the preset's parameters do not fit its schedule.
    """
    graph = "step_learned" if purifier.planner.plan(preset).learned_variance else "step"
    if graph not in purifier.bundle.manifest.graphs:
        raise ConfigError(
            f"the preset needs the graph {graph!r}, which this bundle does not have; "
            "choose variance 'fixed_small' or export a learned-variance network"
        )
    return graph


def check_images(images: Float32, shape: tuple[int, int, int]) -> None:
    """Raise ImageError unless ``images`` are a batch of float32 ``[B, C, H, W]`` without NaN."""
    if images.dtype != np.float32 or images.ndim != 4 or images.shape[1:] != shape:
        raise ImageError(
            f"the batch is {images.dtype} {list(images.shape)}, expected float32 [B, {', '.join(map(str, shape))}] in "
            "[0, 1]; `classify` takes other kinds of images"
        )
    bad = np.flatnonzero(~np.isfinite(images).all(axis=(1, 2, 3)))
    if len(bad):
        raise ImageError(f"image {bad[0]} of the batch has pixels that are NaN or infinite, expected [0, 1]")
