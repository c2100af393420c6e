"""A frame as overlapping tiles of one size, and the windows by which tiles are blended to a frame again.

Tiles are shifted, not padded: as few as leave the overlap, spread evenly from border to border, so every tile holds
pixels of the frame only. With ``h`` the side of a tile, ``o`` the overlap and ``H`` the side of the frame there are
``n = ceil((H - o) / (h - o))`` of them, and tile ``i`` starts at ``round(i (H - h) / (n - 1))``.

The window of a tile is the product of one along each side. Over the ``v`` pixels that it shares with a neighbour it is

    0                                           the outer quarter: what a network sees badly, next to a border
    sin^2(pi/2 (k + 1/2 - q) / (v - 2q))        pixel k of the overlap, q = floor(v / 4), in the middle
    1                                           the inner quarter, and where there is no neighbour

so two neighbours add up to 1 (``sin^2 + cos^2``); where more of them meet, windows are divided by their sum. A network
that sees at most ``q`` pixels far gives on tiles what it gives on the frame.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ..types import Float32


@dataclass(frozen=True)
class Tiling:
    """The tiles of one frame, line by line from the top.

    Attributes:
        frame: height and width of the frame; each at least that of a tile.
        tile: height and width of a tile.
        overlap: share of a tile's side that neighbours have in common at least, in [0, 1).
    """

    frame: tuple[int, int]
    tile: tuple[int, int]
    overlap: float

    @cached_property
    def starts(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Where tiles start: rows, columns."""
        top, left = (_starts(n, side, self.overlap) for n, side in zip(self.frame, self.tile, strict=True))
        return top, left

    @cached_property
    def grid(self) -> tuple[int, int]:
        """How many tiles there are below and beside each other."""
        return len(self.starts[0]), len(self.starts[1])

    @cached_property
    def _windows(self) -> tuple[Float32, Float32]:
        down, across = (_windows(s, n, side) for s, n, side in zip(self.starts, self.frame, self.tile, strict=True))
        return down, across

    def __len__(self) -> int:
        return self.grid[0] * self.grid[1]

    def place(self, index: int) -> tuple[int, int]:
        """Top and left of a tile, in pixels."""
        row, column = divmod(index, self.grid[1])
        return self.starts[0][row], self.starts[1][column]

    def cut(self, array: Float32, index: int) -> Float32:
        """The part of ``[..., H, W]`` under a tile: a view."""
        top, left = self.place(index)
        return array[..., top : top + self.tile[0], left : left + self.tile[1]]

    def window(self, index: int) -> Float32:
        """The weights ``[h, w]`` of a tile; those of all tiles add up to 1 at every pixel of the frame."""
        row, column = divmod(index, self.grid[1])
        found: Float32 = self._windows[0][row][:, None] * self._windows[1][column]
        return found


def _starts(frame: int, tile: int, overlap: float) -> tuple[int, ...]:
    shared = min(math.ceil(overlap * tile), tile - 1)
    count = math.ceil((frame - shared) / (tile - shared))
    return tuple(round(i * (frame - tile) / max(count - 1, 1)) for i in range(count))


def _windows(starts: tuple[int, ...], frame: int, tile: int) -> Float32:
    """``[tiles, tile]`` along one side."""
    raw = np.ones((len(starts), tile))
    total = np.zeros(frame)
    for i, start in enumerate(starts):
        if i > 0:
            raw[i] *= _ramp(starts[i - 1] + tile - start, tile)
        if i + 1 < len(starts):
            raw[i] *= _ramp(start + tile - starts[i + 1], tile)[::-1]
        total[start : start + tile] += raw[i]
    for i, start in enumerate(starts):
        raw[i] /= total[start : start + tile]
    return raw.astype(np.float32)


def _ramp(shared: int, tile: int) -> NDArray[np.float64]:
    """From 0 to 1 over the pixels that are shared with the neighbour before, then 1."""
    quarter = shared // 4
    k = np.arange(tile)
    return np.sin(0.5 * np.pi * np.clip((k + 0.5 - quarter) / max(shared - 2 * quarter, 1), 0.0, 1.0)) ** 2
