"""The stream of normals that all noise comes from, defined once and for all.

The stream is Philox 4x32-10 (Salmon et al. 2011) with an elementwise Box-Muller transform, so a value depends only on
(key, element, row, image, stream) and never on the batch, the order of requests or the engine::

    key     = (seed low 32 bits, seed high 32 bits)
    counter = (element // 4, row, image, stream << 24 | vote)
    u0..u3  = Philox4x32-10(counter, key)                     element % 4 picks one of the four outputs
    r = sqrt(-2 ln((u_even + 0.5) / 2^32)),  phi = 2 pi (u_odd + 0.5) / 2^32
    outputs = r0 cos(phi0), r0 sin(phi0), r1 cos(phi1), r1 sin(phi1)      (u0, u1 make r0, phi0; u2, u3 make r1, phi1)
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..types import Float32

UInt64 = NDArray[np.uint64]

_MULTIPLIERS = np.array([0xD2511F53, 0xCD9E8D57], np.uint64)
#: What the key grows by from round to round.
_WEYL = np.arange(10, dtype=np.uint64)[:, None] * np.array([0x9E3779B9, 0xBB67AE85], np.uint64)
_MASK32 = np.uint64(0xFFFFFFFF)
_SHIFT32 = np.uint64(32)


class Stream(IntEnum):
    """Which noise of a purification a counter belongs to."""

    ROW = 0
    OUT = 1
    CLOSING = 2
    PROBE = 3
    GRID = 4


def philox4x32(counter: UInt64, key: tuple[int, int] | UInt64) -> UInt64:
    """Philox 4x32 with 10 rounds, vectorised: ``[4, ...]`` words of the counters -> ``[4, ...]`` random words.

    Words are 32 bits wide and held in uint64. Even and odd words are worked on as one array each, because for small
    images the number of NumPy calls is what costs. ``key``: of all, or ``[2, N]`` for counters ``[4, N, ...]``.
    """
    even, odd = counter[0::2].copy(), counter[1::2].copy()
    product, high = np.empty_like(even), np.empty_like(even)
    shape = (2,) + (1,) * (counter.ndim - 1)
    multipliers = _MULTIPLIERS.reshape(shape)
    keys = np.asarray(key, np.uint64).reshape(2, -1)
    rounds = (keys + _WEYL[:, :, None] & _MASK32).reshape(10, 2, keys.shape[1], *shape[2:])
    for keys in rounds if counter.ndim > 1 else rounds[:, :, 0]:
        np.multiply(even, multipliers, out=product)
        np.right_shift(product, _SHIFT32, out=high)
        # c0' = high(c2 * M1) ^ c1 ^ k0 and c2' = high(c0 * M0) ^ c3 ^ k1: the halves cross over
        np.bitwise_xor(odd, keys, out=odd)
        np.bitwise_xor(high[::-1], odd, out=even)
        np.bitwise_and(product[::-1], _MASK32, out=odd)
    result = np.empty_like(counter)
    result[0::2], result[1::2] = even, odd
    return result


class Place(NamedTuple):
    """Where the noise of one row of one purification lies in the stream: a key of 64 bits, and words of the counter."""

    key: int
    row: int
    image: int
    tag: int

    @property
    def words(self) -> tuple[int, int, int, int, int]:
        """Of 32 bits: key low, key high, row, image, tag."""
        return self.key & 0xFFFFFFFF, self.key >> 32 & 0xFFFFFFFF, self.row, self.image & 0xFFFFFFFF, self.tag


def tag_of(stream: Stream, vote: int) -> int:
    """The word of stream and vote."""
    return (int(stream) << 24) | (vote & 0xFFFFFF)


def normals(seed: int, image: int, stream: Stream, vote: int, rows: Sequence[int], elements: int) -> Float32:
    """``[len(rows), elements]`` float32 standard normals of one image: the definition of the stream, in NumPy.

    Computed in float64 and rounded once, so that another implementation agrees to 1e-6.
    """
    tag = tag_of(stream, vote)
    return normals_of([Place(seed, row, image, tag) for row in rows], elements)


def normals_of(places: Sequence[Place], elements: int) -> Float32:
    """``[len(places), elements]`` float32 standard normals of rows of any images."""
    blocks = np.arange(-(-elements // 4), dtype=np.uint64)
    return normals_at(places, blocks)[:, :elements]


def normals_at(places: Sequence[Place], blocks: UInt64) -> Float32:
    """The same for some blocks of four elements, ``element // 4``: ``[len(places), 4 * len(blocks)]``."""
    count = len(places)
    table = np.array([place.words for place in places], np.uint64).reshape(count, 5).T
    counter = np.empty((4, count, len(blocks)), np.uint64)
    counter[0] = blocks
    counter[1:] = table[2:, :, None]
    uniform = philox4x32(counter, table[:2]).astype(np.float64)
    uniform += 0.5
    uniform *= 2.0**-32
    radius = np.sqrt(-2.0 * np.log(uniform[0::2]))
    # The sine comes from the cosine: in float64 that is exact to 1e-8, and NumPy's sine costs as much as all the rest.
    cosine = np.cos((2.0 * np.pi) * uniform[1::2])
    sine = np.copysign(np.sqrt(1.0 - cosine * cosine), 0.5 - uniform[1::2])
    out = np.empty((count, len(blocks), 4), dtype=np.float32)
    out[:, :, 0::2] = (radius * cosine).transpose(1, 2, 0)
    out[:, :, 1::2] = (radius * sine).transpose(1, 2, 0)
    return out.reshape(count, len(blocks) * 4)
