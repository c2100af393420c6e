"""Noise that belongs to the pixels of a frame: a tile gets the part of the frame's noise that lies under it.

Tiles that cover a pixel get the same value there, whatever they are and in which order they come. The values of the
counter-based stream are computed where they are needed, so a frame of any size costs the memory of one tile.
"""

from __future__ import annotations

import math

import numpy as np

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


class _OfStream:
    """Computes the blocks of four elements that cover each line of the tile, and drops what lies beside it."""

    def __init__(
        self, noise: StreamNoise, frame: tuple[int, int, int], place: tuple[int, int], size: tuple[int, int]
    ) -> None:
        self._noise, self._shape = noise, (frame[0], *size)
        (top, left), (height, width) = place, size
        lines = np.arange(frame[0])[:, None] * frame[1] + top + np.arange(height)
        first = lines.ravel() * frame[2] + left  # element of the frame, [C * height]
        blocks = first[:, None] // 4 + np.arange(math.ceil((width + 3) / 4))
        self._blocks = blocks.ravel().astype(np.uint64)
        self._keep = first[:, None] % 4 + np.arange(width)

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
