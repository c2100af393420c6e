"""The newest frame wins: a thread reads a source as fast as it comes, and whoever asks gets what is newest."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

Frame = NDArray[np.uint8]


class Newest:
    """Frames of a source that does not wait. What comes while a frame is being worked on replaces what came before it.

    Attributes:
        read: frames that the source gave; of ``taken`` many somebody asked for, the others were dropped.
        taken: how many frames were handed out.
        stamp: when the last one that was handed out had been read, by `clock`.
    """

    def __init__(self, source: Callable[[], Frame | None], clock: Callable[[], float] = time.monotonic) -> None:
        """``source`` blocks until there is a frame and returns it; None is the end."""
        self.read = self.taken = 0
        self.stamp = 0.0
        self._source, self._clock = source, clock
        self._changed = threading.Condition()
        self._waiting: tuple[Frame, float] | None = None
        self._ended = False
        self._fault: BaseException | None = None
        self._thread = threading.Thread(target=self._read, name="newest frame", daemon=True)

    def __enter__(self) -> Newest:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._ended = True
        self._thread.join(timeout=5.0)

    def __iter__(self) -> Iterator[Frame]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting is not None or self._ended)
                if self._waiting is None:
                    if self._fault is not None:
                        raise self._fault
                    return
                frame, self.stamp = self._waiting
                self._waiting = None
                self.taken += 1
            yield frame

    @property
    def age(self) -> float:
        """Seconds since the last frame that was handed out had been read."""
        return self._clock() - self.stamp

    def _read(self) -> None:
        try:
            while not self._ended:
                frame = self._source()
                if frame is None:
                    break
                with self._changed:
                    self.read += 1
                    self._waiting = frame, self._clock()
                    self._changed.notify_all()
        except Exception as error:
            self._fault = error  # it is raised where the frames are asked for
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()
