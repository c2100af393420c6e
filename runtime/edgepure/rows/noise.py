"""Where the noise of a purification comes from. Randomness is an argument, never a global state.

Three sources:

- `SecretNoise`: a fresh key of 256 bits from the operating system's CSPRNG for every request. The default: noise that
  an attacker can predict is no defence.
- `SeededNoise`: the same counter-based stream with a key that the caller gives; for tests, audits and parity.
- `replay.Replay`: recorded noises, composed into the merged noise of each row.

The stream is that of `philox`: a value depends only on (key, element, row, image, stream) and never on the batch, the
order of requests or the engine.

A purified image tells something of its noise, so whoever has one can try keys without a network call. 64 bits are few
for that. Keys of more than 64 bits are therefore hashed (BLAKE2b) with image and vote to the seed, the words of image
and vote, and the upper 15 bits of the row: 135 bits of secret for each purification, which say nothing of any other.
"""

from __future__ import annotations

import os
import secrets
import threading
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Any, Protocol, cast

import numpy as np

from ..errors import ConfigError
from ..types import Float32
from .philox import Place, Stream, UInt64, normals_at, normals_of, tag_of
from .plan import Plan

#: Rows are generated in blocks of about this many bytes: enough rows of a small image to share the cost of NumPy's
#: calls, and few enough that the working arrays stay in the cache.
BLOCK_BYTES = 48 << 10
#: Keys have at most so many bits.
KEY_BITS = 256
#: Row numbers have at most so many bits (`edgepure.rows.plan.MAX_ROWS`); those above are free for secrets.
_ROW_BITS = 17


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
        self, plan: Plan, image: int, vote: int, mask: Float32 | None, shape: tuple[int, ...], *, probe: bool = False
    ) -> RowNoise:
        """The noises of vote ``vote`` of image ``image`` along ``plan``."""


class StreamNoise:
    """Rows of the counter-based stream, generated in blocks: one vectorised call serves many rows.

    Rows that need no noise are left out; asking for one gives zeros. An engine that makes the noise itself asks for the
    `counter` instead.
    """

    def __init__(self, seed: int, plan: Plan, image: int, vote: int, shape: tuple[int, ...], probe: bool) -> None:
        self._seed, self._image, self._vote, self._high = _place(seed, image, vote, probe)
        self._shape = shape
        self.elements = int(np.prod(shape))
        self._per_block = max(1, BLOCK_BYTES // (self.elements * 4))
        self._rows = {Stream.PROBE if probe else Stream.ROW: plan.noisy_rows, Stream.OUT: plan.out_noisy_rows}
        self._stream = Stream.PROBE if probe else Stream.ROW
        self._blocks: dict[Stream, dict[int, Float32]] = {}

    def _get(self, stream: Stream, index: int) -> Float32:
        block = self._blocks.get(stream)
        if block is None or index not in block:
            rows = self._block(stream, index)
            if not rows:
                return np.zeros(self._shape, dtype=np.float32)
            self.keep(rows, normals_of(self.places(rows, stream), self.elements), stream)
        return self._blocks[stream][index]

    def _block(self, stream: Stream, index: int) -> tuple[int, ...]:
        """Row ``index`` and the rows after it that need a noise, as many as fit a block; none if it needs none."""
        needed = self._rows[stream]
        start = bisect_left(needed, index)
        rows = needed[start : start + self._per_block]
        return rows if rows and rows[0] == index else ()

    def row(self, index: int) -> Float32:
        return self._get(self._stream, index)

    def out(self, index: int) -> Float32:
        return self._get(Stream.OUT, index)

    def missing(self, index: int) -> tuple[int, ...]:
        """The rows of the block that row ``index`` asks for; none if it is there."""
        block = self._blocks.get(self._stream)
        return () if block is not None and index in block else self._block(self._stream, index)

    def places(self, rows: Sequence[int], stream: Stream | None = None) -> list[Place]:
        """Where these rows lie in the stream; ``stream``: that of others than of the rows themselves."""
        tag = tag_of(self._stream if stream is None else stream, self._vote)
        return [Place(self._seed, self._high | row, self._image, tag) for row in rows]

    def keep(self, rows: Sequence[int], noises: Float32, stream: Stream | None = None) -> None:
        """Hold the noises ``[len(rows), elements]`` of a block until the next one is asked for."""
        found = dict(zip(rows, noises.reshape(len(rows), *self._shape), strict=True))
        self._blocks[self._stream if stream is None else stream] = found

    def counter(self, index: int, *, out: bool = False) -> tuple[int, int, int, int, int]:
        """Where the noise of row ``index`` (with ``out``: its second noise) lies in the stream, as 32-bit words:
        key low, key high, row, image, stream << 24 | vote. The element is the word that is missing."""
        (place,) = self.places((index,), Stream.OUT if out else None)
        return place.words

    def closing(self) -> Float32:
        flat = normals_of(self.places((0,), Stream.CLOSING), self.elements)
        result: Float32 = flat[0].reshape(self._shape)
        return result

    def at(self, index: int, blocks: UInt64, stream: Stream | None = None) -> Float32:
        """Noise of row ``index`` at some blocks of four elements, flat; ``stream``: OUT, or CLOSING with row 0."""
        found: Float32 = normals_at(self.places((index,), stream), blocks)[0]
        return found


def make_together(wanted: Iterable[tuple[RowNoise, int]]) -> None:
    """Make the blocks that these rows are about to ask for in common calls, as far as they fit one block: for small
    images the number of NumPy's calls is what costs."""
    todo: list[tuple[StreamNoise, tuple[int, ...]]] = []
    room = 0
    for noise, index in wanted:
        if not isinstance(noise, StreamNoise) or (rows := noise.missing(index)) == ():
            continue
        size = 4 * noise.elements * len(rows)
        if size > room or noise.elements != todo[0][0].elements:
            _make(todo)
            todo, room = [], BLOCK_BYTES
        todo.append((noise, rows))
        room -= size
    _make(todo)


def _make(todo: list[tuple[StreamNoise, tuple[int, ...]]]) -> None:
    if len(todo) < 2:
        return  # it is made when it is asked for
    found, start = normals_of([p for noise, rows in todo for p in noise.places(rows)], todo[0][0].elements), 0
    for noise, rows in todo:
        noise.keep(rows, found[start : start + len(rows)])
        start += len(rows)


def _place(seed: int, image: int, vote: int, probe: bool) -> tuple[int, int, int, int]:
    """Seed, image word, vote word and upper bits of the row word of one purification; see the module's text."""
    if seed < 2**64:
        return seed, image, vote, 0
    key = seed.to_bytes(KEY_BITS // 8, "little")
    digest = blake2b(b"%d/%d/%d" % (image, vote, probe), key=key, digest_size=17).digest()
    words = [int.from_bytes(digest[a:b], "little") for a, b in ((0, 8), (8, 12), (12, 15), (15, 17))]
    return words[0], words[1], words[2], words[3] % (1 << (32 - _ROW_BITS)) << _ROW_BITS


class SeededNoise:
    """Counter-based noise with a known key: reproducible, so never for answering untrusted requests.

    Args:
        seed: 0 .. 2^256 - 1. The stream of a seed below 2^64 is that of the bundle format, the same for ever.

    Raises:
        ConfigError: it is no integer, or out of range.
    """

    def __init__(self, seed: int) -> None:
        if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
            raise ConfigError(f"the noise seed is {seed!r}, expected an integer", code="E-noise-seed")
        if not 0 <= seed < 2**KEY_BITS:
            raise ConfigError(
                f"the noise seed must lie in 0 .. 2^{KEY_BITS} - 1, got {seed}", code="E-noise-seed-range"
            )
        self._seed = int(seed)

    @property
    def seed(self) -> int | None:
        return self._seed

    def for_image(
        self, plan: Plan, image: int, vote: int, mask: Float32 | None, shape: tuple[int, ...], *, probe: bool = False
    ) -> RowNoise:
        assert self.seed is not None
        return StreamNoise(self.seed, plan, image, vote, shape, probe)


class SecretNoise(SeededNoise):
    """Counter-based noise with a key from the operating system's CSPRNG.

    A key serves one request: what is used again gets another key, and so do copies and what survives a fork, so that
    no two requests ever share their noise. `seed` is the key of the last request, for an audit.
    """

    def __init__(self) -> None:
        super().__init__(secrets.randbits(KEY_BITS))
        self._process, self._used, self._lock = _process(), False, threading.Lock()

    @property
    def seed(self) -> int:
        """The key, as secret as a password."""
        if self._process != _process():  # the lock may have been held at the fork
            self.__init__()  # type: ignore[misc]
        return self._seed

    def once(self) -> SeededNoise:
        """The noise of one request."""
        _ = self.seed
        with self._lock:
            if self._used:
                self._seed = secrets.randbits(KEY_BITS)
            self._used = True
            return SeededNoise(self._seed)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()


_forks = 0


def _forked() -> None:
    global _forks
    _forks += 1


def _process() -> tuple[int, int]:
    """This process and no other, its parent and children included, also where numbers of processes come back."""
    return os.getpid(), _forks


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def noise_source(noise: NoiseSource | int | None) -> NoiseSource:
    """The noise of one request. None: fresh and secret. An int: that seed. A source: itself; secret ones give a key.

    Raises:
        ConfigError: it is something else.
    """
    if noise is None:
        noise = SecretNoise()
    if isinstance(noise, SecretNoise):
        return noise.once()
    if isinstance(noise, int | np.integer) and not isinstance(noise, bool):
        return SeededNoise(int(noise))
    if not hasattr(noise, "for_image"):
        raise ConfigError(
            f"noise is {noise!r:.80}, expected None (secret), an integer (a seed) or a source such as SeededNoise(7)",
            code="E-noise-type",
        )
    return cast(NoiseSource, noise)
