"""One purification request: masks and probes on the way in, votes and labels on the way out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Generic, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..methods.presets import Preset, SequentialSpec
from ..methods.restore import MASK_VOTE, residual_map, residual_mask
from ..rows.noise import NoiseSource
from ..rows.plan import Plan
from ..types import Float32, Progress
from ..validation import expect
from .arguments import warn_of_precision
from .ballot import Ballot
from .cascade import CascadeBallot
from .graphs import OpenGraphs
from .heads import Head, P
from .inflight import Counters, InFlight, Job
from .masks import after_mask, check_mask_use
from .monitor import Monitor, reference_of
from .results import Results
from .submissions import Status, Submission
from .track import Measured, Track

#: Jobs that measure an image before its votes.
PROBE, RESTORATION = -1, -2


class Tag(NamedTuple):
    """Whose job it is: vote ``vote`` of an image of a request; `PROBE`, or `RESTORATION` of its mask. Of a frame
    (`ServedFrame`) it is a tile."""

    request: Any
    image: int
    vote: int


@dataclass
class ImageState:
    """What is known of one image while it is being done."""

    ref: Float32
    mask: Float32 | None
    shown: Float32 | None = None
    plan: Plan | None = None
    score_norm: float | None = None
    p_value: float | None = None
    flagged: bool | None = None
    plain_label: int | None = None
    unet_calls: int = 0
    started: float = 0.0
    seconds: float = 0.0
    asked: int = 0
    ballot: Ballot | CascadeBallot | None = None
    counted_from: int = 0
    held: bool = False
    purified: dict[int, Float32] = field(default_factory=dict)
    answers: dict[int, Any] = field(default_factory=dict)


class Request(Generic[P]):
    """Images that are purified together: a call of `Purifier.run`, or submissions to a `Service` that waited together.

    Args:
        graphs: what computes.
        images: ``[B, C, H, W]`` float32 in [0, 1], checked.
        preset: what is done with them.
        head: what is made of them then.
        sources: of each image the source of its noise, of which it is image ``ids``.
        names, ids: of each image; None: 0, 1, 2, ...
        on_progress: called after each image.
        monitor: counts and flags.
        submissions: who waits for the result of each image; empty: the caller, for all of them.
        masks: ``[B, 1, H, W]`` float32, the caller's in place of the attention mask; None: the preset's.
        track: of a request of one image: holds what was measured of it for those after it.
    """

    def __init__(
        self,
        graphs: OpenGraphs,
        images: Float32,
        preset: Preset,
        head: Head[P],
        sources: Sequence[NoiseSource],
        names: Sequence[str] | None = None,
        ids: Sequence[int] | None = None,
        on_progress: Progress | None = None,
        monitor: Monitor | None = None,
        submissions: Sequence[Submission] = (),
        masks: Float32 | None = None,
        track: Track | None = None,
    ) -> None:
        expect(monitor=(monitor, Monitor, None), track=(track, Track, None))
        check_mask_use(preset, masks is not None)
        head.check(preset)
        if track is not None and len(images) != 1:
            raise ConfigError(f"a track holds one image at a time, got {len(images)}", code="E-track-option")
        warn_of_precision(preset, graphs.precision)
        for what, given in (("names", names), ("ids", ids)):
            if given is not None and len(given) != len(images):
                raise ConfigError(
                    f"{len(given)} {what} for {len(images)} images; give one for each", code="E-request-length"
                )
        self._graphs, self._images, self._preset, self._sources = graphs, images, preset, sources
        self._head, self._masks, self._of_view = head, masks, preset.method.mask_of_view
        self._ids = ids if ids is not None else range(len(images))
        self._names = names if names is not None else [str(i) for i in self._ids]
        self._progress = on_progress
        self.counters = Counters()
        self._chunk = max(graphs.slots, 16)
        sequential = preset.votes.sequential
        self._stages = tuple(graphs.planner.plan(stage) for stage in preset.stages)
        self._first_votes = preset.votes.count if sequential is None else self._ballot(sequential).fewest()
        self._left = len(images) * self._first_votes  # votes that were asked for and are not purified
        self._more: deque[Job] = deque()
        self._state: dict[int, ImageState] = {}
        self._to_read: list[tuple[int, int]] = []
        self._results: dict[int, P] = {}
        self._monitor, self._submissions, self._track = monitor, submissions, track
        extra = None if monitor is None else monitor.probe_of(preset)
        spec = preset.ssni.probe if preset.ssni is not None else extra
        self._probe = None if spec is None else graphs.planner.rows(spec)
        self._restoration = graphs.planner.restoration(preset)
        self._monitor_calls = 0 if extra is None else extra.unet_calls
        calibration = graphs.bundle.manifest.calibration
        self._reference = None if spec is None else reference_of(calibration, spec, graphs.precision)
        if monitor is not None:
            monitor.check(spec, self._reference)

    def results(self, on_rows: Callable[[int], None] | None = None) -> Results[P]:
        """Run it alone, and wait for it."""
        self._graphs.check_files()
        inflight = InFlight(self._graphs.stepper(self._graphs.step_graph(self._preset)))
        inflight.run(self.jobs(), self.done, on_rows)
        self.counters = inflight.counters
        return Results(self._results[i] for i in range(len(self._images)))

    def jobs(self) -> Iterator[Job]:
        """Jobs in the order of the images; masks are computed for a chunk of images at a time."""
        for start in range(0, len(self._images), self._chunk):
            chunk = self._images[start : start + self._chunk]
            masked = self._masks is None and self._preset.mask is not None and not self._of_view
            known = None if self._track is None else self._track.holds(chunk[0], self._preset, masked=masked)
            masks = None if self._masks is None else self._masks[start : start + self._chunk]
            if masks is None and known is not None and known.mask is not None:
                masks = known.mask[None]
            plain: NDArray[np.int64] | None = None
            spec = self._preset.mask
            if spec is not None and spec.source == "attention" and masks is None and not self._of_view:
                seen = self._graphs.attention(chunk, spec)
                masks = seen["mask"]
                plain = seen["logits"].argmax(axis=1) if "logits" in seen else None
            for offset, image in enumerate(chunk):
                index = start + offset
                if self._over(index):
                    continue
                state = ImageState(2.0 * image - 1.0, None if masks is None else masks[offset])
                if plain is not None:
                    state.plain_label = int(plain[offset])
                state.started = perf_counter()
                self._state[index] = state
                if known is not None:
                    yield from self._held(index, known)
                elif self._restoration is not None and state.mask is None:
                    yield self._measuring(index, self._restoration, RESTORATION)
                else:
                    yield from self._levelled(index)

    def _held(self, index: int, known: Measured) -> Iterator[Job]:
        """What follows where an earlier frame was measured."""
        state = self._state[index]
        state.held, state.p_value, state.flagged = True, known.p_value, known.flagged
        if known.score_norms is not None:
            (state.score_norm,) = known.score_norms
        yield from self._votes(index, self._graphs.planner.plan(self._preset, state.score_norm))

    def _levelled(self, index: int) -> Iterator[Job]:
        """What follows once the mask is known: the probe, or the votes at once."""
        if self._probe is None:
            yield from self._votes(index, self._graphs.planner.plan(self._preset))
        else:
            yield self._measuring(index, self._probe, PROBE)

    def _measuring(self, index: int, plan: Plan, what: int) -> Job:
        """A job that comes before the votes, with noise that no vote has."""
        state, vote = self._state[index], MASK_VOTE if what == RESTORATION else 0
        state.unet_calls += plan.unet_calls
        noise = self._sources[index].for_image(plan, self._ids[index], vote, None, self._graphs.image_shape, probe=True)
        return Job(plan, noise, state.ref, None, tag=Tag(self, index, what))

    def _votes(self, index: int, plan: Plan) -> Iterator[Job]:
        state = self._state[index]
        state.plan = plan
        if self._preset.votes.sequential is not None:
            state.ballot = self._ballot(self._preset.votes.sequential)
        yield from self._ask(index, plan, self._first_votes)

    def _ballot(self, spec: SequentialSpec) -> Ballot | CascadeBallot:
        cascade = self._preset.cascade
        return Ballot(spec) if cascade is None else CascadeBallot(spec, cascade.share, len(self._stages))

    def _ask(self, index: int, plan: Plan, count: int) -> Iterator[Job]:
        """Jobs of so many further votes."""
        state = self._state[index]
        first, state.asked = state.asked, state.asked + count
        for vote in range(first, first + count):
            if self._over(index):
                return
            noise = self._sources[index].for_image(plan, self._ids[index], vote, state.mask, self._graphs.image_shape)
            rows = range(plan.mask_from) if self._of_view and state.mask is None else None
            yield Job(plan, noise, state.ref, state.mask, tag=Tag(self, index, vote), rows=rows)

    def done(self, job: Job, x: Float32) -> Iterator[Job] | None:
        """Take the result of a job; after a measurement, the jobs that follow from it."""
        _, index, vote = job.tag
        if self._over(index):
            return None
        state = self._state[index]
        if vote == RESTORATION:
            spec = self._preset.mask
            assert spec is not None
            found = residual_map(x, state.ref, spec.residual.window)
            state.mask = residual_mask(found, spec.threshold, spec.area)
            return self._levelled(index)
        if vote == PROBE:
            state.score_norm = float(np.linalg.norm(x.astype(np.float64)))
            if self._reference is not None:
                state.p_value = self._reference.p_value(state.score_norm)
                if self._monitor is not None:
                    state.flagged = self._monitor.see(state.p_value, self._monitor_calls)
            return self._votes(index, self._graphs.planner.plan(self._preset, state.score_norm))
        if job.todo.stop < len(job.plan.rows):
            return iter([after_mask(self._graphs, self._preset, job, x)])
        state.unet_calls += job.plan.unet_calls
        if state.mask is None and vote == 0:
            state.shown = job.mask
        state.purified[vote] = np.clip(0.5 * x + 0.5, 0.0, 1.0)
        self._to_read.append((index, vote))
        self._left -= 1
        if len(self._to_read) >= self._chunk or not self._left:
            self._read()
        return self.more()

    def more(self) -> Iterator[Job]:
        """Further votes of images whose answer was not settled by those before."""
        while self._more:
            yield self._more.popleft()

    # ---- for those who wait for single images ---------------------------------------------------------------------

    @property
    def running(self) -> int:
        """Images without a result that somebody waits for."""
        return sum(submission.status is Status.RUNNING for submission in self._submissions)

    def _over(self, index: int) -> bool:
        """Whether an image failed, or nobody wants it any more: then nothing more is done for it."""
        return bool(self._submissions) and self._submissions[index].over()

    def dropped(self, index: int) -> bool:
        """Whether the jobs of an image need not be finished; what was kept of it is given up."""
        if not self._over(index):
            return False
        self._state.pop(index, None)
        self._to_read = [entry for entry in self._to_read if entry[0] != index]
        return True

    def give_out(self) -> bool:
        """Read what is purified by now, and give the results out; whether every image has its own."""
        try:
            if self._to_read:
                self._read()
        except Exception as error:  # of the graph that reads
            self.fail(error)
        for index, submission in enumerate(self._submissions):
            if index in self._results:
                submission.finish(self._results[index])
        return all(submission.status is Status.DONE for submission in self._submissions)

    def fail(self, error: BaseException, index: int | None = None) -> None:
        """End an image with this error; None: all that have no result yet."""
        for submission in self._submissions if index is None else [self._submissions[index]]:
            submission.finish(error)

    def _read(self) -> None:
        batch = np.stack([self._state[i].purified[v] for i, v in self._to_read])
        for (index, vote), answer in zip(self._to_read, self._head.read(batch), strict=True):
            state = self._state[index]
            state.answers[vote] = answer
            if vote > 0:
                del state.purified[vote]
            if len(state.answers) == state.asked:
                self._decide(index, state)
        self._to_read.clear()

    def _decide(self, index: int, state: ImageState) -> None:
        """The result of an image, or more votes."""
        ballot = state.ballot
        if ballot is not None:
            for vote in range(ballot.votes, state.asked):
                ballot.cast(int(state.answers[vote].argmax()))
            if ballot.open:
                assert state.plan is not None
                if isinstance(ballot, CascadeBallot):
                    state.plan, state.counted_from = self._stages[ballot.level], ballot.first
                count = ballot.fewest()
                self._left += count
                self._more.extend(self._ask(index, state.plan, count))
                return
        self._finish(index, state)

    def _finish(self, index: int, state: ImageState) -> None:
        assert state.plan is not None
        shown = state.shown if state.mask is None else state.mask
        common = {
            "name": self._names[index],
            "levels": dict(state.plan.levels),
            "score_norm": state.score_norm,
            "p_value": state.p_value,
            "flagged": state.flagged,
            "held": state.held,
            "mask": None if shown is None else shown[0] > 0.5,
            "unet_calls": state.unet_calls,
            "seconds": perf_counter() - state.started,
            "image": state.purified[0],
        }
        more = {
            "plain_label": state.plain_label,
            "abstained": state.ballot is not None and state.ballot.settled is None,
        }
        answers = [state.answers[vote] for vote in sorted(state.answers) if vote >= state.counted_from]
        self._results[index] = self._head.settle(answers, self._preset.votes, common, more)
        if self._track is not None and not state.held:
            norms = None if state.score_norm is None else (state.score_norm,)
            mask = None if self._masks is not None else state.mask
            found = Measured(mask, norms, state.p_value, state.flagged)
            self._track.keep(self._images[index], self._preset, found)
        del self._state[index]
        if self._progress is not None:
            done, count = len(self._results), len(self._images)
            self._progress(done / count, f"{done} of {count} images")
