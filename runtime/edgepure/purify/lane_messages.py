"""What a service and the process of one of its lanes tell each other over a socket that nobody else has.

Both are one program: messages are pickled, each behind its length.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ..methods.presets import Preset
from ..types import Float32
from .monitor import Monitor
from .results import Purified

_LENGTH = struct.Struct("<Q")


class Begin(NamedTuple):
    """What a process opens; the first that it is told."""

    path: Path
    content_hash: str
    verify: bool
    provider: str
    precision: str
    threads: int | None
    slots: int
    preset: Preset
    monitor: Monitor | None


class Enter(NamedTuple):
    """An image for the slots. ``behind``: how many wait in the service, after it. ``source``: pickled by itself, as its
    class may be one that only the service knows."""

    number: int
    image: Float32
    name: str
    source: bytes
    deadline: float | None
    urgent: bool
    behind: int


class Drop(NamedTuple):
    """Nobody waits for an image any more."""

    number: int


class End(NamedTuple):
    """Nothing comes after this."""


class Moves(NamedTuple):
    """What the slots did so far, and the seconds that a row takes (`Pace.row`). The first says that all is open."""

    ticks: int
    rows: int
    jobs: int
    row: float


class Done(NamedTuple):
    """What became of an image: its result, its error, or None if it was dropped."""

    number: int
    found: Purified | BaseException | None
    moves: Moves


class Failed(NamedTuple):
    """Why a process cannot begin."""

    error: BaseException


def packed(message: Any) -> bytes:
    """A message as it goes over the socket."""
    data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    return _LENGTH.pack(len(data)) + data


class Inbox:
    """Makes messages of what came over the socket, in whatever pieces."""

    def __init__(self) -> None:
        self._data = bytearray()

    def put(self, data: bytes) -> Iterator[Any]:
        """The messages that are whole with this."""
        self._data += data
        while len(self._data) >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(self._data)
            end = _LENGTH.size + size
            if len(self._data) < end:
                return
            message = pickle.loads(memoryview(self._data)[_LENGTH.size : end])
            del self._data[:end]
            yield message
