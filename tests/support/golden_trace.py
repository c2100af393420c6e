"""Running a golden case on any executor of rows, with everything recorded that the goldens can be compared with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from golden_data import Float32, Recorded, onnx_epsilon
from numpy.typing import NDArray
from numpy_stepper import NumpyStepper

from edgepure.engines.base import Stepper
from edgepure.purify.inflight import InFlight, Job
from edgepure.rows.noise import RowNoise
from edgepure.rows.plan import Plan
from edgepure.rows.replay import Replay

Array = NDArray[Any]
Epsilon = Callable[[Float32, Float32], Float32]

#: The goldens' suggested absolute tolerance where a section says nothing else.
ATOL = 2e-5


@dataclass
class Expect:
    """One recorded array ``[B, C, H, W]`` (or ``[B]``) and where it appears along the rows.

    ``t``: network label of a row. ``z``: network input. ``eps``: network output, epsilon channels. ``x0``: its clipped
    estimate. ``x``: state after a row, with the noise that the step owes. ``final``: the result, ``image``: the result
    in [0, 1], not clipped.
    """

    what: Literal["t", "z", "eps", "x0", "x", "final", "image"]
    row: int
    value: Array
    atol: float = ATOL
    where: Array | None = None


@dataclass
class Case:
    """One golden trajectory: a plan and an input for each image, recorded noise, expectations."""

    name: str
    net: Path
    plans: list[Plan]
    refs: Float32
    recorded: Recorded
    expect: list[Expect]
    masks: Float32 | None = None
    #: more checks on a trace that has ``z`` and ``eps``
    trace_check: Callable[[Trace], None] | None = None


@dataclass
class Trace:
    """What an executor did. ``[rows, B, ...]``; ``z`` and ``eps`` are None where the network is fused into the row."""

    t: Array
    x: Array
    final: Array
    z: Array | None = None
    eps: Array | None = None


class TracingStepper(Stepper):
    """Wraps a stepper; remembers the state of every image after each of its rows.

    Images are numbered in the order in which they enter a slot.
    """

    def __init__(self, inner: Stepper) -> None:
        self.inner = inner
        self.capacity, self.image_shape = inner.capacity, inner.image_shape
        self.coeffs, self.noise, self.noise_out = inner.coeffs, inner.noise, inner.noise_out
        self.rows: dict[int, list[dict[str, Array]]] = {}
        self._image: dict[int, int] = {}
        self.last_call: dict[str, Array] = {}

    def admit(self, slot: int, x: Float32, ref: Float32, mask: Float32 | None) -> None:
        self._image[slot] = len(self.rows)
        self.rows[len(self.rows)] = []
        self.inner.admit(slot, x, ref, mask)

    def move(self, source: int, target: int) -> None:
        self._image[target] = self._image[source]
        self.inner.move(source, target)

    def load_noise(self, slot: int, noise: RowNoise, row: int) -> None:
        self.inner.load_noise(slot, noise, row)

    def load_noise_out(self, slot: int, noise: RowNoise, row: int) -> None:
        self.inner.load_noise_out(slot, noise, row)

    def step(self, active: int) -> None:
        self.inner.step(active)
        for slot in range(active):
            seen = {"t": self.coeffs[slot, 0].copy(), "x": self.inner.state(slot)}
            seen.update({name: array[slot].copy() for name, array in self.last_call.items()})
            self.rows[self._image[slot]].append(seen)

    def state(self, slot: int) -> Float32:
        return self.inner.state(slot)


def numpy_stepper(case: Case, capacity: int, epsilon: Epsilon | None = None) -> TracingStepper:
    """The row arithmetic in NumPy around the case's network; records the network's inputs and outputs."""
    network = epsilon or onnx_epsilon(case.net)
    calls: dict[str, Array] = {}

    def recorded(z: Float32, t: Float32) -> Float32:
        output = network(z, t)
        calls.update(z=z, eps=output[:, : z.shape[1]])
        return output

    shape = case.refs.shape[1:]
    tracing = TracingStepper(NumpyStepper(recorded, (shape[0], shape[1], shape[2]), capacity))
    tracing.last_call = calls
    return tracing


def run(case: Case, stepper: TracingStepper) -> Trace:
    """Execute the case's rows in flight, with its recorded noise."""
    source = Replay(case.recorded)
    masks = case.masks
    shape = case.refs.shape[1:]
    jobs = []
    for image, plan in enumerate(case.plans):
        mask = None if masks is None else masks[image]
        noise = source.for_image(plan, image, 0, mask, shape)
        jobs.append(Job(plan, noise, case.refs[image], mask, tag=image))
    final = np.full_like(case.refs, np.nan)

    def done(job: Job, result: Float32) -> None:
        final[job.tag] = result

    InFlight(stepper).run(jobs, done)
    images = [stepper.rows[image] for image in range(len(case.plans))]
    stacked = {name: np.array([[row[name] for row in rows] for rows in images]).swapaxes(0, 1) for name in images[0][0]}
    return Trace(final=final, **stacked)


def owed(case: Case, row: int) -> Array:
    """``[B, C, H, W]``: the noise that the step of a row owes, taken from what the next row (or the end) merges."""
    total = np.zeros(case.refs.shape)
    for image, plan in enumerate(case.plans):
        if row + 1 < len(plan.rows):
            following = plan.rows[row + 1]
            draws = [(d, d.c_in / following.jump_a) for d in following.draws if d.source in ("step", "target")]
        else:
            draws = [(d, d.c_in) for d in plan.closing]
        for draw, factor in draws:
            total[image] += factor * case.recorded(draw, image)
    return total


def check(case: Case, trace: Trace) -> dict[str, float]:
    """Compare every expectation; returns the largest absolute error by kind."""
    errors: dict[str, float] = {}
    for expect in case.expect:
        if expect.what in ("z", "eps", "x0") and trace.z is None:
            continue
        got = _value(case, trace, expect)
        error = np.abs(got - expect.value)
        if expect.where is not None:
            error = error * expect.where
        worst = float(error.max())
        assert worst <= expect.atol, f"{case.name}: {expect.what} of row {expect.row} is off by {worst:.3g}"
        errors[expect.what] = max(errors.get(expect.what, 0.0), worst)
    if case.trace_check is not None and trace.z is not None:
        case.trace_check(trace)
    assert case.recorded.unused() == [], f"{case.name}: recorded noises were left over"
    return errors


def _value(case: Case, trace: Trace, expect: Expect) -> Array:
    row = expect.row
    if expect.what == "final":
        return trace.final
    if expect.what == "image":
        return np.asarray(0.5 * trace.final + 0.5)
    if expect.what == "x":
        return trace.x[row] + owed(case, row)
    if expect.what == "x0":
        assert trace.z is not None and trace.eps is not None
        rows = [plan.rows[row] for plan in case.plans]
        alpha, sigma, clip = (
            np.array([getattr(r, name) for r in rows])[:, None, None, None] for name in ("alpha", "sigma", "clip")
        )
        return np.asarray(np.clip((trace.z[row] - sigma * trace.eps[row]) / alpha, -clip, clip))
    return np.asarray(getattr(trace, expect.what)[row])
