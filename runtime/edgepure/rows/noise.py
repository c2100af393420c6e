"""Where the noise of a purification comes from. Randomness is an argument, never a global state.

Three sources:

- `SecretNoise`: a fresh key from the operating system's CSPRNG for every request. The default: noise that an attacker
  can predict is no defence.
- `SeededNoise`: the same counter-based stream with a key that the caller gives; for tests, audits and parity.
- `Replay`: recorded noises, composed into the merged noise of each row.

The stream is Philox 4x32-10 (Salmon et al. 2011) with an elementwise Box-Muller transform, so a value depends only on
(key, element, row, image, stream) and never on the batch, the order of requests or the engine::

    key     = (seed low 32 bits, seed high 32 bits)
    counter = (element // 4, row, image, stream << 24 | vote)
    u0..u3  = Philox4x32-10(counter, key)                     element % 4 picks one of the four outputs
    r = sqrt(-2 ln((u_even + 0.5) / 2^32)),  phi = 2 pi (u_odd + 0.5) / 2^32
    outputs = r0 cos(phi0), r0 sin(phi0), r1 cos(phi1), r1 sin(phi1)      (u0, u1 make r0, phi0; u2, u3 make r1, phi1)
"""

from __future__ import annotations

import secrets
from bisect import bisect_left
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from .plan import Draw, Plan

Float32 = NDArray[np.float32]
UInt32 = NDArray[np.uint32]
UInt64 = NDArray[np.uint64]

_MULTIPLIERS = np.array([0xD2511F53, 0xCD9E8D57], np.uint64)
_W0, _W1 = 0x9E3779B9, 0xBB67AE85
_MASK32 = np.uint64(0xFFFFFFFF)
_SHIFT32 = np.uint64(32)

#: Rows are generated in blocks of about this many bytes: enough rows of a small image to share the cost of NumPy's
#: calls, and few enough that the working arrays stay in the cache.
BLOCK_BYTES = 48 << 10


class Stream(IntEnum):
    """Which noise of a purification a counter belongs to."""

    ROW = 0
    OUT = 1
    CLOSING = 2
    PROBE = 3


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
    blocks = -(-elements // 4)
    counter = np.empty((4, len(rows), blocks), np.uint64)
    counter[0] = np.arange(blocks, dtype=np.uint64)
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
    out = np.empty((len(rows), blocks, 4), dtype=np.float32)
    out[:, :, 0::2] = np.moveaxis(radius * cosine, 0, -1)
    out[:, :, 1::2] = np.moveaxis(radius * sine, 0, -1)
    return out.reshape(len(rows), blocks * 4)[:, :elements]


class RowNoise(Protocol):
    """The noises of one purification of one image. Arrays are float32 ``[C, H, W]``."""

    def row(self, index: int) -> Float32:
        """Merged noise ``n`` of row ``index``."""

    def out(self, index: int) -> Float32:
        """Second noise of row ``index``, for learned-variance networks."""

    def closing(self) -> Float32:
        """Noise to add after the last row, times the plan's ``closing_std``."""


class NoiseSource(Protocol):
    """Gives every purification its noise."""

    @property
    def seed(self) -> int | None:
        """The key of the stream; None for replayed noise. Secret: with it an attacker can predict the noise."""

    def for_image(
        self,
        plan: Plan,
        image: int,
        vote: int,
        mask: Float32 | None,
        shape: tuple[int, ...],
        *,
        probe: bool = False,
    ) -> RowNoise:
        """The noises of vote ``vote`` of image ``image`` along ``plan``."""


class StreamNoise:
    """Rows of the counter-based stream, generated in blocks: one vectorised call serves many rows.

    Rows that need no noise are left out; asking for one gives zeros. An engine that makes the noise itself asks for the
    `counter` instead.
    """

    def __init__(self, seed: int, plan: Plan, image: int, vote: int, shape: tuple[int, ...], probe: bool) -> None:
        self._seed, self._image, self._vote, self._shape = seed, image, vote, shape
        self._elements = int(np.prod(shape))
        self._per_block = max(1, BLOCK_BYTES // (self._elements * 4))
        self._rows = {Stream.PROBE if probe else Stream.ROW: plan.noisy_rows, Stream.OUT: plan.out_noisy_rows}
        self._stream = Stream.PROBE if probe else Stream.ROW
        self._blocks: dict[Stream, dict[int, Float32]] = {}

    def _get(self, stream: Stream, index: int) -> Float32:
        block = self._blocks.get(stream)
        if block is None or index not in block:
            block = self._blocks[stream] = self._block(stream, index)
        return block[index]

    def _block(self, stream: Stream, index: int) -> dict[int, Float32]:
        """The noises of row ``index`` and of the rows after it that need one, as many as fit a block."""
        needed = self._rows[stream]
        start = bisect_left(needed, index)
        rows = needed[start : start + self._per_block]
        if not rows or rows[0] != index:
            return {index: np.zeros(self._shape, dtype=np.float32)}
        block = normals(self._seed, self._image, stream, self._vote, rows, self._elements)
        return dict(zip(rows, block.reshape(len(rows), *self._shape), strict=True))

    def row(self, index: int) -> Float32:
        return self._get(self._stream, index)

    def out(self, index: int) -> Float32:
        return self._get(Stream.OUT, index)

    def counter(self, index: int, *, out: bool = False) -> tuple[int, int, int, int, int]:
        """Where the noise of row ``index`` (with ``out``: its second noise) lies in the stream, as 32-bit words:
        key low, key high, row, image, stream << 24 | vote. The element is the word that is missing."""
        stream = Stream.OUT if out else self._stream
        tag = (int(stream) << 24) | (self._vote & 0xFFFFFF)
        return self._seed & 0xFFFFFFFF, self._seed >> 32, index & 0xFFFFFFFF, self._image & 0xFFFFFFFF, tag

    def closing(self) -> Float32:
        flat = normals(self._seed, self._image, Stream.CLOSING, self._vote, (0,), self._elements)
        result: Float32 = flat[0].reshape(self._shape)
        return result


class SeededNoise:
    """Counter-based noise with a known key: reproducible, so never for answering untrusted requests."""

    def __init__(self, seed: int) -> None:
        if not 0 <= seed < 2**64:
            raise ConfigError(f"the noise seed must lie in 0 .. 2^64 - 1, got {seed}", code="E-noise-seed")
        self._seed = int(seed)

    @property
    def seed(self) -> int | None:
        return self._seed

    def for_image(
        self,
        plan: Plan,
        image: int,
        vote: int,
        mask: Float32 | None,
        shape: tuple[int, ...],
        *,
        probe: bool = False,
    ) -> RowNoise:
        return StreamNoise(self._seed, plan, image, vote, shape, probe)


class SecretNoise(SeededNoise):
    """Counter-based noise with a key from the operating system's CSPRNG, drawn when the object is made."""

    def __init__(self) -> None:
        super().__init__(secrets.randbits(64))


#: Finds the recorded array ``[C, H, W]`` of one draw of one image.
Recording = Callable[[Draw, int], Float32]


class Replay:
    """Recorded noises, for goldens and audits.

    A row merges several independent noises of the method into one tensor; replay composes the recorded ones with
    their exact weights: ``n = sum(c * recorded) / std`` inside and outside the mask.
    """

    def __init__(self, recording: Recording) -> None:
        self._recording = recording

    @property
    def seed(self) -> int | None:
        return None

    def for_image(
        self,
        plan: Plan,
        image: int,
        vote: int,
        mask: Float32 | None,
        shape: tuple[int, ...],
        *,
        probe: bool = False,
    ) -> RowNoise:
        return _ReplayNoise(self._recording, plan, image, mask, shape)


class _ReplayNoise:
    def __init__(
        self, recording: Recording, plan: Plan, image: int, mask: Float32 | None, shape: tuple[int, ...]
    ) -> None:
        self._recording, self._plan, self._image, self._shape = recording, plan, image, shape
        inside = np.ones((1, *shape[1:])) if mask is None else mask.astype(np.float64)
        if not np.all((inside == 0.0) | (inside == 1.0)):
            raise ConfigError(
                "replayed noise needs a binary mask: a merged noise has one weight inside and one outside",
                code="E-replay-mask",
            )
        self._inside = inside

    def _compose(self, draws: tuple[Draw, ...], std_in: float, std_out: float) -> Float32:
        total = np.zeros(self._shape, dtype=np.float64)
        for draw in draws:
            inside = draw.c_in / std_in if std_in > 0.0 else 0.0
            outside = draw.c_out / std_out if std_out > 0.0 else 0.0
            weight = inside * self._inside + outside * (1.0 - self._inside)
            total += weight * self._recording(draw, self._image)
        return total.astype(np.float32)

    def row(self, index: int) -> Float32:
        row = self._plan.rows[index]
        return self._compose(row.draws, row.std(1.0), row.std(0.0))

    def out(self, index: int) -> Float32:
        draw = self._plan.rows[index].out_draw
        if draw is None or self._plan.rows[index].out_noise == 0.0:
            return np.zeros(self._shape, dtype=np.float32)
        return np.asarray(self._recording(draw, self._image), dtype=np.float32)

    def closing(self) -> Float32:
        return self._compose(self._plan.closing, self._plan.closing_std, self._plan.closing_std)


def noise_source(noise: NoiseSource | int | None) -> NoiseSource:
    """None: fresh secret noise. An int: that seed. A source: itself."""
    if noise is None:
        return SecretNoise()
    if isinstance(noise, (int, np.integer)):
        return SeededNoise(int(noise))
    return noise
