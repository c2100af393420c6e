"""Graphs on arrays of the host, for engines that compute there: the slots of a step graph, and a bound call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from ..rows.plan import COLUMNS, LEARNED_COLUMNS
from ..types import Float32
from .base import BoundCall, Engine, Stepper, TensorSpec

#: From the arrays of the inputs and of the outputs to a call that reads the ones and writes the others.
Prepare = Callable[[dict[str, Float32], dict[str, Float32]], Callable[[], object]]


class HostEngine(Engine):
    """An engine on arrays of the host. A new one implements `_run`, and `prepare` if it can save copies."""

    def prepare(
        self, inputs: Mapping[str, Float32], outputs: Mapping[str, Float32], full: bool = False
    ) -> Callable[[], object]:
        """A call on C-contiguous arrays, batch first, which must outlive it.

        ``full``: calls with this batch size are going to be many; it is worth being prepared for.
        """
        self.check_open()

        def call() -> None:
            found = self._run({name: array for name, array in inputs.items()})
            for name, array in outputs.items():
                array[...] = found[name]

        return call

    def bound(self, batch: int) -> BoundCall:
        return HostCall(self, batch, partial(self.prepare, full=True))

    def stepper(self, slots: int = 8) -> HostStepper:
        self.check_open()
        return HostStepper(self, slots)


class HostStepper(Stepper):
    """Preallocated buffers around the calls of an engine.

    ``x`` lives in two buffers that swap their roles after each step, because a graph may read its input while it
    writes its output. A call is prepared once for each number of active slots and each direction between the two.
    """

    def __init__(self, engine: HostEngine, capacity: int = 8, image_shape: tuple[int, int, int] | None = None) -> None:
        """Allocate the slots of a step graph; the engine must outlive them. ``image_shape``: of a graph of any size."""
        channels, height, width = image_shape or (int(n) for n in engine.inputs["x"].shape[1:])
        self._engine = engine
        self.capacity, self.image_shape = capacity, (channels, height, width)
        learned = "noise_out" in engine.inputs
        columns = len(COLUMNS) + (len(LEARNED_COLUMNS) if learned else 0)
        self._x = [np.zeros((capacity, channels, height, width), np.float32) for _ in range(2)]
        self._now = 0
        self._ref = np.zeros_like(self._x[0])
        self._mask = np.ones((capacity, 1, height, width), np.float32)
        self.noise = np.zeros_like(self._x[0])
        self.noise_out = np.zeros_like(self._x[0]) if learned else None
        self.coeffs = np.zeros((capacity, columns), np.float32)
        self._calls: dict[tuple[int, int], Callable[[], object]] = {}

    def admit(self, slot: int, x: Float32, ref: Float32, mask: Float32 | None) -> None:
        self._x[self._now][slot], self._ref[slot] = x, ref
        self._mask[slot] = 1.0 if mask is None else mask

    def move(self, source: int, target: int) -> None:
        for array in (self._x[self._now], self._ref, self._mask):
            array[target] = array[source]

    def step(self, active: int) -> None:
        key = (active, self._now)
        call = self._calls.get(key)
        if call is None:
            self.check_open()
            call = self._calls[key] = self._engine.prepare(
                self._feeds(active), {"x_next": self._x[1 - self._now][:active]}, active == self.capacity
            )
        call()
        self._now = 1 - self._now

    def state(self, slot: int) -> Float32:
        x: Float32 = self._x[self._now][slot].copy()
        return x

    def _close(self) -> None:
        self._calls.clear()

    def _feeds(self, active: int) -> dict[str, Float32]:
        arrays = {
            "x": self._x[self._now],
            "ref": self._ref,
            "mask": self._mask,
            "noise": self.noise,
            "coeffs": self.coeffs,
        }
        if self.noise_out is not None:
            arrays["noise_out"] = self.noise_out
        return {name: array[:active] for name, array in arrays.items()}


class HostCall(BoundCall):
    """A graph on arrays of the host."""

    def __init__(self, engine: Engine, batch: int, prepare: Prepare) -> None:
        """``prepare``: makes the call from the arrays of the inputs and of the outputs, by name."""

        def zeros(spec: TensorSpec) -> Float32:
            return np.zeros((batch, *(int(n) for n in spec.shape[1:])), np.float32)

        self.inputs = {name: zeros(spec) for name, spec in engine.inputs.items()}
        self._outputs = {name: zeros(spec) for name, spec in engine.outputs.items()}
        self._call = prepare(self.inputs, self._outputs)

    def __call__(self) -> None:
        self._call()
