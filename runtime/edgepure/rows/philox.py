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

import numpy as np
from numpy.typing import NDArray

from ..types import Float32

UInt64 = NDArray[np.uint64]

_MULTIPLIERS = np.array([0xD2511F53, 0xCD9E8D57], np.uint64)
_W0, _W1 = 0x9E3779B9, 0xBB67AE85
_MASK32 = np.uint64(0xFFFFFFFF)
_SHIFT32 = np.uint64(32)


class Stream(IntEnum):
    """Which noise of a purification a counter belongs to."""

    ROW = 0
    OUT = 1
    CLOSING = 2
    PROBE = 3
    GRID = 4


def philox4x32(counter: UInt64, key: tuple[int, int]) -> UInt64:
    """Philox 4x32 with 10 rounds, vectorised: ``[4, ...]`` words of the counters -> ``[4, ...]`` random words.

    Words are 32 bits wide and held in uint64. Even and odd words are worked on as one array each, because for small
    images the number of NumPy calls is what costs.
    """
    even, odd = counter[0::2].copy(), counter[1::2].copy()
    product, high = np.empty_like(even), np.empty_like(even)
    shape = (2,) + (1,) * (counter.ndim - 1)
    multipliers = _MULTIPLIERS.reshape(shape)
    k0, k1 = key
    for _ in range(10):
        np.multiply(even, multipliers, out=product)
        np.right_shift(product, _SHIFT32, out=high)
        # c0' = high(c2 * M1) ^ c1 ^ k0 and c2' = high(c0 * M0) ^ c3 ^ k1: the halves cross over
        np.bitwise_xor(odd, np.array([k0, k1], np.uint64).reshape(shape), out=odd)
        np.bitwise_xor(high[::-1], odd, out=even)
        np.bitwise_and(product[::-1], _MASK32, out=odd)
        k0, k1 = (k0 + _W0) & 0xFFFFFFFF, (k1 + _W1) & 0xFFFFFFFF
    result = np.empty_like(counter)
    result[0::2], result[1::2] = even, odd
    return result


def normals(seed: int, image: int, stream: Stream, vote: int, rows: Sequence[int], elements: int) -> Float32:
    """``[len(rows), elements]`` float32 standard normals of one image: the definition of the stream, in NumPy.

    Computed in float64 and rounded once, so that another implementation agrees to 1e-6.
    """
    blocks = np.arange(-(-elements // 4), dtype=np.uint64)
    return normals_at(seed, image, stream, vote, rows, blocks)[:, :elements]


def normals_at(seed: int, image: int, stream: Stream, vote: int, rows: Sequence[int], blocks: UInt64) -> Float32:
    """The same for some blocks of four elements, ``element // 4``: ``[len(rows), 4 * len(blocks)]``."""
    counter = np.empty((4, len(rows), len(blocks)), np.uint64)
    counter[0] = blocks
    counter[1] = np.asarray(rows, dtype=np.uint64)[:, None]
    counter[2] = image & 0xFFFFFFFF
    counter[3] = (int(stream) << 24) | (vote & 0xFFFFFF)
    uniform = philox4x32(counter, (seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF)).astype(np.float64)
    uniform += 0.5
    uniform *= 2.0**-32
    radius = np.sqrt(-2.0 * np.log(uniform[0::2]))
    # The sine comes from the cosine: in float64 that is exact to 1e-8, and NumPy's sine costs as much as all the rest.
    cosine = np.cos((2.0 * np.pi) * uniform[1::2])
    sine = np.copysign(np.sqrt(1.0 - cosine * cosine), 0.5 - uniform[1::2])
    out = np.empty((len(rows), len(blocks), 4), dtype=np.float32)
    out[:, :, 0::2] = np.moveaxis(radius * cosine, 0, -1)
    out[:, :, 1::2] = np.moveaxis(radius * sine, 0, -1)
    return out.reshape(len(rows), len(blocks) * 4)
