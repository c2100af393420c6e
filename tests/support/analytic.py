"""An analytic network and reproducible noise, for tests that need no golden file."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from numpy_stepper import NumpyStepper

from edgepure.purify.inflight import InFlight, Job
from edgepure.rows.noise import NoiseSource
from edgepure.rows.plan import Draw, Plan
from edgepure.rows.replay import Replay

Array = NDArray[Any]

SHAPE = (2, 3, 4)


def images(seed: int, count: int = 2, shape: tuple[int, ...] = SHAPE) -> Array:
    """``[count, C, H, W]`` float32 in [-1, 1]."""
    return np.random.default_rng(seed).uniform(-1, 1, (count, *shape)).astype(np.float32)


def masks(seed: int, count: int = 2, shape: tuple[int, ...] = SHAPE) -> Array:
    """``[count, 1, H, W]`` float32, 0 or 1."""
    return np.random.default_rng(seed + 1).integers(0, 2, (count, 1, *shape[1:])).astype(np.float32)


def network(x: Array, t: Array) -> Array:
    """Epsilon of Gaussian data (mean a cosine pattern, variance 0.3) plus a coupling of neighbours, in float64."""
    x, t = np.asarray(x, dtype=np.float64), np.asarray(t, dtype=np.float64)[:, None, None, None]
    a2 = np.exp(-(1e-4 * (t + 1.0) + 9.95e-6 * (t + 1.0) ** 2))
    mean = 0.5 * np.cos(np.arange(x[0].size)).reshape(x.shape[1:])
    gaussian = np.sqrt(1.0 - a2) * (x - np.sqrt(a2) * mean) / (0.3 * a2 + 1.0 - a2)
    return np.asarray(gaussian + 0.1 * np.tanh(np.roll(x, 1, axis=3) + np.cos(t / 50.0)))


def network_learned(x: Array, t: Array) -> Array:
    """The same with a learned-range variance in the second half of the channels."""
    return np.concatenate([network(x, t), np.tanh(0.8 * np.roll(x, 1, axis=2) - 0.2)], axis=1)


def in_float32(function: Callable[[Array, Array], Array]) -> Callable[[Array, Array], Array]:
    """What a float32 network would return."""
    return lambda x, t: function(x, t).astype(np.float32)


class NoiseBook:
    """Standard normals found by (source, index): the same for an oracle, which draws in order, and for `Replay`."""

    def __init__(self, seed: int, count: int = 2, shape: tuple[int, ...] = SHAPE) -> None:
        self._seed, self._shape = seed, (count, *shape)
        self._next: dict[str, int] = {}
        self.by_draw: set[tuple[str, int]] = set()

    def get(self, source: str, index: int) -> Array:
        """``[B, C, H, W]`` float32."""
        rng = np.random.default_rng([self._seed, zlib.crc32(source.encode()), index])
        return rng.standard_normal(self._shape).astype(np.float32)

    def draw(self, source: str) -> Array:
        """The next noise of a source, in float64: what an oracle asks for."""
        index = self._next.get(source, 0)
        self._next[source] = index + 1
        return self.get(source, index).astype(np.float64)

    @property
    def drawn(self) -> set[tuple[str, int]]:
        """All that was drawn in order."""
        return {(source, index) for source, count in self._next.items() for index in range(count)}

    def recording(self, draw: Draw, image: int) -> Array:
        """What `Replay` asks for."""
        self.by_draw.add((draw.source, draw.index))
        return self.get(draw.source, draw.index)[image]


def execute(
    plan: Plan | list[Plan],
    refs: Array,
    noise: NoiseSource | NoiseBook,
    mask: Array | None = None,
    *,
    epsilon: Callable[[Array, Array], Array] | None = None,
    capacity: int = 2,
    order: list[int] | None = None,
) -> Array:
    """Run one plan per image through the row executor; ``[B, C, H, W]`` float32 results.

    ``order``: in which order the images are handed in; their ids stay the same.
    """
    plans = plan if isinstance(plan, list) else [plan] * len(refs)
    source: NoiseSource = Replay(noise.recording) if isinstance(noise, NoiseBook) else noise
    results = np.full_like(refs, np.nan)
    jobs = []
    for image in order or range(len(refs)):
        own = None if mask is None else mask[image]
        row_noise = source.for_image(plans[image], image, 0, own, refs.shape[1:])
        jobs.append(Job(plans[image], row_noise, refs[image], own, tag=image))

    def done(job: Job, result: Array) -> None:
        results[job.tag] = result

    learned = any(p.learned_variance for p in plans)
    function = epsilon or in_float32(network_learned if learned else network)
    shape = (refs.shape[1], refs.shape[2], refs.shape[3])
    InFlight(NumpyStepper(function, shape, capacity)).run(jobs, done)
    return results
