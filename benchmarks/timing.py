"""Timing side by side: every round runs each candidate once, so a busy moment of the machine hits all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import perf_counter

import numpy as np

from edgepure.engines.onnxruntime_engine import OnnxRuntimeEngine


def rounds(candidates: Mapping[str, Callable[[], object]], repeats: int, warmup: int = 1) -> dict[str, list[float]]:
    """Seconds of each candidate in each round; the order alternates from round to round."""
    for _ in range(warmup):
        for run in candidates.values():
            run()
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for number in range(repeats):
        names = list(candidates)
        for name in names if number % 2 == 0 else reversed(names):
            start = perf_counter()
            candidates[name]()
            times[name].append(perf_counter() - start)
    return times


class BareUnet:
    """The bare UNet graph on preallocated buffers: the fastest call that the engine can make."""

    def __init__(self, engine: OnnxRuntimeEngine, batch: int) -> None:
        shape = (batch, *(int(n) for n in engine.inputs["x"].shape[1:]))
        self._x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        self._t = np.zeros(batch, np.float32)
        self._out = np.empty(shape, np.float32)
        self._session = engine.session
        self._binding = engine.session.io_binding()
        for name, array in (("x", self._x), ("t", self._t)):
            self._binding.bind_input(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
        self._binding.bind_output(next(iter(engine.outputs)), "cpu", 0, np.float32, shape, self._out.ctypes.data)

    def __call__(self, t: float) -> None:
        self._t[:] = t
        self._session.run_with_iobinding(self._binding)
