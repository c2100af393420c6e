"""In-flight batching: images at different timesteps, and with plans of different length, share every UNet call.

A slot holds one image and its row pointer. Each tick executes the next row of all occupied slots as one batch; finished
images leave, waiting ones enter. Nobody waits for the slowest.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np

from ..engines.base import Stepper
from ..errors import EdgepureError, NotFiniteError
from ..rows.noise import NoiseSource, RowNoise
from ..rows.plan import Plan
from ..types import Float32


@dataclass(eq=False)
class Job:
    """One plan to execute on one image.

    Attributes:
        plan: the rows.
        noise: the noises of this purification.
        ref: ``[C, H, W]`` float32 input in [-1, 1].
        mask: ``[1, H, W]`` float32, 1 inside; None means ones.
        tag: whatever the caller needs to know the job again.
        watch: called with (job, row, state ``[C, H, W]`` in model range) after each row; for verification.
        x: ``[C, H, W]`` float32, the state to go on from; None: where the plan starts.
        rows: which rows of the plan; None: all. The closing noise belongs to the last one.
        seconds: filled in: time from entering a slot to leaving it.
    """

    plan: Plan
    noise: RowNoise
    ref: Float32
    mask: Float32 | None = None
    tag: Any = None
    watch: Callable[[Job, int, Float32], None] | None = None
    x: Float32 | None = None
    rows: range | None = None
    seconds: float = 0.0
    _row: int = field(default=0, repr=False)
    _entered: float = field(default=0.0, repr=False)

    @property
    def todo(self) -> range:
        """The rows of the plan that the job is."""
        return range(len(self.plan.rows)) if self.rows is None else self.rows

    @property
    def left(self) -> int:
        """Rows that are not done yet."""
        return self.todo.stop - self._row

    def start(self) -> Float32:
        """The state before its first row."""
        if self.x is not None:
            return self.x
        return self.ref if self.plan.start == "ref" else np.zeros_like(self.ref)


#: Called with a finished job and its result ``[C, H, W]`` in model range; may return jobs to be done next, which are
#: taken one by one when a slot is free.
Done = Callable[[Job, Float32], "Iterable[Job] | None"]
#: Called with a job whose result is not finite, and the error that says so.
Failed = Callable[[Job, NotFiniteError], None]


@dataclass
class Counters:
    """What a run did: `ticks` step-graph calls of `rows` rows in all; occupancy = rows / (ticks * capacity)."""

    ticks: int = 0
    rows: int = 0
    jobs: int = 0


class InFlight:
    """Runs jobs through the slots of one stepper. Not thread-safe.

    Attributes:
        counters: what it did.
        active: the jobs in the slots, in their order.
        call_seconds: that the last call took, with what is done for its rows; not what images cost that enter or leave.
        clock: seconds; `time.perf_counter` but in tests.
    """

    def __init__(self, stepper: Stepper) -> None:
        self._stepper = stepper
        self.call_seconds, self.clock = 0.0, perf_counter
        self.counters = Counters()
        self.active: list[Job] = []

    @property
    def left(self) -> float:
        """Rows that the jobs in the slots have not done yet, on average; 0 if there are none."""
        return sum(job.left for job in self.active) / max(1, len(self.active))

    def run(
        self,
        jobs: Iterable[Job | None],
        done: Done,
        on_tick: Callable[[int], object] | None = None,
        failed: Failed | None = None,
        dropped: Callable[[Job], bool] | None = None,
    ) -> None:
        """Execute jobs until none is left.

        Args:
            jobs: taken one by one when a slot is free, so it may be a generator. None means that there is none at the
                moment: it is asked again after the next tick.
            done: called for every finished job, in the order in which they finish.
            on_tick: called after each tick, when its finished jobs are done, with the number of rows that it executed.
            failed: called for a job with NaN or infinite values; the others go on. None: that is an error.
            dropped: asked after each tick whether nobody wants a job any more: then its slot is free again, and neither
                ``done`` nor ``failed`` hears of it.

        Raises:
            NotFiniteError: the model gave NaN or infinite values.
        """
        stepper = self._stepper
        waiting: Iterator[Job | None] = iter(jobs)
        urgent: deque[Iterator[Job]] = deque()  # what follows from finished jobs: it finishes what is half done
        active = self.active
        exhausted = False
        while True:
            while len(active) < stepper.capacity:
                job = _first(urgent)
                if job is None and not exhausted:
                    try:
                        job = next(waiting)
                    except StopIteration:
                        exhausted = True
                if job is None:
                    break
                self._check(job)
                job._entered = perf_counter()
                if not job.todo:
                    urgent.append(iter(done(job, job.start().copy()) or ()))
                    continue
                job._row = job.todo.start
                stepper.admit(len(active), job.start(), job.ref, job.mask)
                active.append(job)
            if not active:
                if exhausted:
                    return
                continue
            stepper.expect_noise((job.noise, job._row) for job in active if job.plan.rows[job._row].draws)
            began = self.clock()
            for slot, job in enumerate(active):
                _load_row(stepper, slot, job)
            rows = len(active)
            stepper.step(rows)
            self.call_seconds = self.clock() - began
            self.counters.ticks += 1
            self.counters.rows += rows
            # from the last slot down, so that the image that fills a gap has been looked at already
            for slot in range(len(active) - 1, -1, -1):
                job = active[slot]
                if job.watch is not None:
                    job.watch(job, job._row - 1, stepper.state(slot))
                unwanted = dropped is not None and dropped(job)
                if job._row < job.todo.stop and not unwanted:
                    continue
                result = None if unwanted else self._finish(job, stepper.state(slot), failed)
                last = len(active) - 1
                if slot != last:
                    stepper.move(last, slot)
                    active[slot] = active[last]
                active.pop()
                if result is not None:
                    urgent.append(iter(done(job, result) or ()))
            if on_tick is not None:
                on_tick(rows)

    def _finish(self, job: Job, x: Float32, failed: Failed | None) -> Float32 | None:
        """The result of a job; None if it failed, and others go on."""
        if job.plan.closing and job._row == len(job.plan.rows):
            x = x + np.float32(job.plan.closing_std) * job.noise.closing()
        if not np.isfinite(x).all():
            where = self._first_bad_row(job) if failed is None else ""
            error = NotFiniteError(
                f"the diffusion model gave NaN or infinite values (plan {job.plan.method}, {len(job.plan.rows)} UNet "
                f"calls{where}); run `edgepure verify` on the bundle",
                code="E-not-finite-network",
            )
            if failed is None:
                raise error
            failed(job, error)
            return None
        job.seconds = perf_counter() - job._entered
        self.counters.jobs += 1
        return x

    def _first_bad_row(self, job: Job) -> str:
        """Run the job once more, alone, and say after which row its state is not finite. Nothing else goes on then."""
        stepper, job._row = self._stepper, job.todo.start
        stepper.admit(0, job.start(), job.ref, job.mask)
        for number in job.todo:
            row = job.plan.rows[number]
            _load_row(stepper, 0, job)
            stepper.step(1)
            if not np.isfinite(stepper.state(0)).all():
                return f", first after row {number}: {row.stage} at t = {row.t:g}"
        return ""

    def _check(self, job: Job) -> None:
        if job.plan.learned_variance and self._stepper.noise_out is None:
            raise EdgepureError(
                "the plan uses the network's learned variance, but the step graph has none; "
                "export the model with its 6 output channels, or choose variance 'fixed_small'",
                code="E-learned-variance-graph",
            )


def run_images(
    stepper: Stepper,
    images: Float32,
    plans: Sequence[Plan],
    source: NoiseSource,
    done: Callable[[int, Float32], None],
    *,
    masks: Float32 | None = None,
    ids: Sequence[int] | None = None,
    probe: bool = False,
    watch: Callable[[int, int, Float32], None] | None = None,
) -> Counters:
    """Execute one plan on each image, all in flight together.

    Args:
        stepper: the slots.
        images: ``[B, C, H, W]`` float32 in [0, 1].
        plans: one for each image.
        source: image i is image ``ids[i]`` of its stream; None: 0, 1, 2, ...
        done: called with (image, result ``[C, H, W]`` in model range), in the order in which they finish.
        masks: ``[B, 1, H, W]`` float32, 1 inside; None: ones.
        probe: the plans measure, so their noise is that of the probes.
        watch: called with (image, row, state ``[C, H, W]`` in model range) after each row.

    Raises:
        NotFiniteError: the model gave NaN or infinite values.
    """

    def jobs() -> Iterator[Job]:
        for i, (image, plan) in enumerate(zip(images, plans, strict=True)):
            mask = None if masks is None else masks[i]
            noise = source.for_image(plan, i if ids is None else ids[i], 0, mask, image.shape, probe=probe)
            seen = None if watch is None else lambda job, row, state: watch(job.tag, row, state)
            yield Job(plan, noise, 2.0 * image - 1.0, mask, tag=i, watch=seen)

    def finished(job: Job, x: Float32) -> None:
        done(job.tag, x)

    inflight = InFlight(stepper)
    inflight.run(jobs(), finished)
    return inflight.counters


def _first(waiting: deque[Iterator[Job]]) -> Job | None:
    """The next of the jobs that follow from others; None: there is none."""
    while waiting:
        job = next(waiting[0], None)
        if job is not None:
            return job
        waiting.popleft()
    return None


def _load_row(stepper: Stepper, slot: int, job: Job) -> None:
    """Write the next row of a job to its slot. This runs once per row and image: for small images it is the loop."""
    number, plan = job._row, job.plan
    job._row = number + 1
    table = plan.coeffs
    if table.shape[1] == stepper.coeffs.shape[1]:
        stepper.coeffs[slot] = table[number]
    else:  # a row of an ordinary plan on the learned-variance graph
        stepper.coeffs[slot, : table.shape[1]] = table[number]
        stepper.coeffs[slot, table.shape[1] :] = 0.0
    row = plan.rows[number]
    if row.draws:
        stepper.load_noise(slot, job.noise, number)
    if row.out_noise != 0.0 and stepper.noise_out is not None:
        stepper.load_noise_out(slot, job.noise, number)
