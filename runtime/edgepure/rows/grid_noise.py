"""Noise on the grid of 8-bit images: exact, and the same on every engine.

Certificates are proofs about real numbers, and float noise added to float images is only close to that. An 8-bit image
has the levels ``u / 255``. The noise here is a whole number of levels, ``k = round(255 sigma n)``, drawn from the
integer stream by comparing 63-bit integers with a table. Because ``u`` is whole,
``u + k = round(u + 255 sigma n)``: the noised image is a function of the textbook's, so the textbook's certificate
holds for it exactly, between 8-bit images. What follows (scaling to [-1, 1], the network) sees that whole number only,
so its precision does not matter to the proof::

    key, row, image and vote as in `edgepure.rows.philox`; stream 4; the words of one counter serve two elements:
    sign = lowest bit of the pair, u = the other 63;
    |k| = number of m >= 0 with u < 2^63 erfc((m + 1/2) / (255 sigma sqrt 2))
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ..types import Float32
from .noise import RowNoise, StreamNoise
from .philox import Stream, philox4x32

#: Levels between black and white.
LEVELS = 255


def levels_of(image: Float32) -> NDArray[np.int64] | None:
    """The 8-bit levels of an image in [0, 1]; None if it is not one of 8 bits."""
    levels = np.rint(image.astype(np.float64) * LEVELS)
    exact = (levels / LEVELS).astype(np.float32)
    if not np.array_equal(exact, image) and np.abs(exact - image).max(initial=0.0) > 1e-6:
        return None
    return levels.astype(np.int64)


def grid_noise(stream: StreamNoise, sigma: float, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """``round(255 sigma n)`` for every element of ``shape``: the noise of one vote of one image, in levels.

    ``stream``: of that vote; its key, image and vote are used. ``sigma``: on images in [0, 1].
    """
    low, high, row, image, tag = stream.counter(0)
    elements = math.prod(shape)
    pairs = -(-elements // 2)
    counter = np.empty((4, pairs), np.uint64)
    counter[0] = np.arange(pairs, dtype=np.uint64)
    counter[1], counter[2], counter[3] = row, image, (int(Stream.GRID) << 24) | (tag & 0xFFFFFF)
    words = philox4x32(counter, (low, high))
    drawn = (words[0::2] << np.uint64(32) | words[1::2]).T.ravel()[:elements]
    tails = _tails(sigma)
    size = len(tails) - np.searchsorted(tails, drawn >> np.uint64(1), side="right")
    noise: NDArray[np.int64] = np.where(drawn & np.uint64(1), -size, size).astype(np.int64).reshape(shape)
    return noise


@lru_cache(maxsize=16)
def _tails(sigma: float) -> NDArray[np.uint64]:
    """``2^63 P(|k| > m)`` for m = 0, 1, ... as far as it is at least 1, ascending."""
    found: list[int] = []
    while (tail := int(2.0**63 * math.erfc((len(found) + 0.5) / (LEVELS * sigma * math.sqrt(2.0))))) > 0:
        found.append(tail)
    return np.array(found[::-1], np.uint64)


class NoisedInput:
    """An 8-bit image with its first noise already in it, and the noises of the rows after the first."""

    def __init__(self, inner: RowNoise, shape: tuple[int, ...]) -> None:
        self._inner, self._none = inner, np.zeros(shape, np.float32)

    def row(self, index: int) -> Float32:
        return self._none if index == 0 else self._inner.row(index)

    def out(self, index: int) -> Float32:
        return self._inner.out(index)

    def closing(self) -> Float32:
        return self._inner.closing()


def noised_input(levels: NDArray[np.int64], stream: StreamNoise, sigma: float) -> tuple[Float32, NoisedInput]:
    """What enters the slots for one vote: the input in [-1, 1] with its noise, and the other noises."""
    noised = (levels + grid_noise(stream, sigma, levels.shape)) * (2.0 / LEVELS) - 1.0
    return noised.astype(np.float32), NoisedInput(stream, levels.shape)
