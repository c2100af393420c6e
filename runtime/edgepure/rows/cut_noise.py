"""Noise that belongs to the pixels of a frame: a tile gets the part of the frame's noise that lies under it.

Tiles that cover a pixel get the same value there, whatever they are and in which order they come. The values of the
counter-based stream are computed where they are needed, so a frame of any size costs the memory of one tile.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ..types import Float32
from .noise import RowNoise, StreamNoise
from .philox import Stream


def cut_noise(noise: RowNoise, frame: tuple[int, int, int], place: tuple[int, int], size: tuple[int, int]) -> RowNoise:
    """The noises under one tile.

    Args:
        noise: of the frame.
        frame: ``(C, H, W)``.
        place: top and left of the tile, in pixels of the frame.
        size: height and width of the tile.
    """
    if isinstance(noise, StreamNoise):
        return _OfStream(noise, frame, place, size)
    return _OfFrame(noise, place, size)


class _OfFrame:
    """Cuts arrays of the whole frame; for recorded noises and those of other packages."""

    def __init__(self, noise: RowNoise, place: tuple[int, int], size: tuple[int, int]) -> None:
        (top, left), (height, width) = place, size
        self._noise, self._part = noise, (slice(None), slice(top, top + height), slice(left, left + width))

    def row(self, index: int) -> Float32:
        return self._noise.row(index)[self._part]

    def out(self, index: int) -> Float32:
        return self._noise.out(index)[self._part]

    def closing(self) -> Float32:
        return self._noise.closing()[self._part]


@lru_cache(16)
def _layout(
    frame: tuple[int, int, int], size: tuple[int, int], offset: int
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Which blocks of four elements cover the lines of a tile, counted from the block of its first element, and what is
    kept of them ``[C * height, width]``. ``offset``: of that element in its block. So a frame has four layouts at most,
    whatever the number of its tiles."""
    lines = np.arange(frame[0])[:, None] * frame[1] + np.arange(size[0])
    first = lines.ravel() * frame[2] + offset  # element, [C * height]
    blocks = first[:, None] // 4 + np.arange(math.ceil((size[1] + 3) / 4))
    return blocks.ravel().astype(np.uint64), first[:, None] % 4 + np.arange(size[1])


class _OfStream:
    """Computes the blocks of four elements that cover each line of the tile, and drops what lies beside it."""

    def __init__(
        self, noise: StreamNoise, frame: tuple[int, int, int], place: tuple[int, int], size: tuple[int, int]
    ) -> None:
        self._noise, self._shape = noise, (frame[0], *size)
        block, offset = divmod(place[0] * frame[2] + place[1], 4)
        blocks, self._keep = _layout(frame, size, offset)
        self._blocks = blocks + np.uint64(block)

    def _cut(self, index: int, stream: Stream | None = None) -> Float32:
        values = self._noise.at(index, self._blocks, stream).reshape(len(self._keep), -1)
        result: Float32 = np.take_along_axis(values, self._keep, axis=1).reshape(self._shape)
        return result

    def row(self, index: int) -> Float32:
        return self._cut(index)

    def out(self, index: int) -> Float32:
        return self._cut(index, Stream.OUT)

    def closing(self) -> Float32:
        return self._cut(0, Stream.CLOSING)
