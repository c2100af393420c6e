"""Rows on a whole frame by tiles: all tiles execute a row, are blended to the frame, and are cut anew for the next.

So the network sees a tile at a time, but the frame has one state ``x`` (as in MultiDiffusion, arXiv 2302.08113)::

    for row in plan:
        x = sum over tiles i of  window[i] * row(x under i, ref under i, mask under i, noise under i)

Everything in a row but the network is done pixel by pixel, and noise belongs to the pixels of the frame, so tiles that
cover a pixel differ by what the network says there and by nothing else. Sums are made in the order of the tiles,
whatever the order in which they were computed: a result does not depend on how tiles shared the calls.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from ..engines.base import Stepper
from ..images.tiles import Tiling
from ..rows.cut_noise import cut_noise
from ..rows.noise import RowNoise
from ..rows.plan import Plan
from ..types import Float32
from .inflight import Counters, InFlight, Job

#: Weight that a tile of a part keeps where its window is 0, so that every pixel that it sees has a state.
TRACE = np.float32(1e-6)

T = TypeVar("T")


@dataclass(frozen=True)
class Stage:
    """Jobs of a frame that need nothing of each other; what follows needs all of them.

    Attributes:
        jobs: made when there is a slot for them.
        count: their number.
        take: called with each of them, when it is done, and its result.
    """

    jobs: Iterator[Job]
    count: int
    take: Callable[[Job, Float32], None]


#: Work on a frame: its stages, one after another, and what comes of them.
Stages = Generator[Stage, None, T]


def run_stages(
    stages: Stages[T], stepper: Stepper, on_rows: Callable[[int], object] | None = None
) -> tuple[T, Counters]:
    """Do the work, and wait for it: what comes of it, and what was done. ``on_rows``: called after every call with the
    number of rows that it executed."""
    inflight = InFlight(stepper)
    while True:
        try:
            stage = next(stages)
        except StopIteration as end:
            return end.value, inflight.counters
        inflight.run(stage.jobs, stage.take, on_rows)


def tiled_rows(
    plan: Plan,
    noise: RowNoise,
    ref: Float32,
    mask: Float32 | None,
    tiling: Tiling,
    tiles: Sequence[int] | None = None,
) -> Stages[Float32]:
    """A plan on a frame: a stage a row. The result ``[C, H, W]`` is in model range.

    Args:
        plan: the rows.
        noise: of the frame.
        ref: ``[C, H, W]`` float32 in [-1, 1].
        mask: ``[1, H, W]`` float32, 1 inside; None: ones.
        tiling: of the frame.
        tiles: which of them in ascending order; None: all. Pixels that none of them covers are 0 in the result.
    """
    state = _Frame(plan, noise, ref, mask, tiling, tiles)
    for row in range(len(plan.rows)):
        yield Stage(state.jobs(row), len(state.tiles), state.take)
        state.blend()
    return state.x


class _Frame:
    """The state of a frame. Jobs hold views of its arrays, so it needs the same memory for any number of tiles."""

    def __init__(
        self,
        plan: Plan,
        noise: RowNoise,
        ref: Float32,
        mask: Float32 | None,
        tiling: Tiling,
        tiles: Sequence[int] | None,
    ) -> None:
        self._plan, self._noise, self._ref, self._mask, self._tiling = plan, noise, ref, mask, tiling
        self.tiles = range(len(tiling)) if tiles is None else tiles
        self.x: Float32 = ref.copy() if plan.start == "ref" else np.zeros_like(ref)
        self._sum = np.zeros_like(ref)
        self._waiting: dict[int, Float32] = {}  # done before a tile that comes first in the sum
        self._added = 0
        self._covered: Float32 | None = None
        if tiles is not None:  # the windows of a part do not add up to 1
            self._covered = np.zeros(ref.shape[1:], np.float32)
            for tile in tiles:
                tiling.cut(self._covered, tile)[...] += self._weight(tile)

    def jobs(self, row: int) -> Iterator[Job]:
        """A row of the plan on every tile."""
        frame, size = self._ref.shape, self._tiling.tile
        for tile in self.tiles:
            noise = cut_noise(self._noise, (frame[0], frame[1], frame[2]), self._tiling.place(tile), size)
            ref, x = self._tiling.cut(self._ref, tile), self._tiling.cut(self.x, tile)
            mask = None if self._mask is None else self._tiling.cut(self._mask, tile)
            yield Job(self._plan, noise, ref, mask, tag=tile, x=x, rows=range(row, row + 1))

    def take(self, job: Job, x: Float32) -> None:
        self._waiting[job.tag] = x
        while self._added < len(self.tiles) and (tile := self.tiles[self._added]) in self._waiting:
            self._tiling.cut(self._sum, tile)[...] += self._weight(tile) * self._waiting.pop(tile)
            self._added += 1

    def blend(self) -> None:
        """The row is done: its sum is the state of the next one."""
        if self._covered is not None:
            np.divide(self._sum, self._covered, out=self._sum, where=self._covered > 0.0)
        self.x, self._sum = self._sum, self.x
        self._sum[...] = 0.0
        self._added = 0

    def _weight(self, tile: int) -> Float32:
        window = self._tiling.window(tile)
        return window if self._covered is None else np.maximum(window, TRACE)
