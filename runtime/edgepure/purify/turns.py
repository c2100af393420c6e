"""Who may use the engines of a process at the moment."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import EdgepureError


class Turns:
    """Turns at engines: one thread of the process that opened them, for one run.

    Threads wait for each other, and whoever had the last turn lets those who wait go first. What could only give wrong
    results or hang is an error.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._running = False
        self._process = os.getpid()
        self._last = self._depth = 0
        self._waiting: set[int] = set()

    @property
    def forked(self) -> bool:
        """Whether this process is a child of the one that opened the engines."""
        return os.getpid() != self._process

    @property
    def wanted(self) -> bool:
        """Whether another thread waits for its turn."""
        return bool(self._waiting - {threading.get_ident()})

    def check_process(self) -> None:
        """Raise EdgepureError if this process was forked from the one that opened the engines."""
        if self.forked:
            raise EdgepureError(
                "this purifier was opened before the process was forked, and engines do not survive that; open the "
                "bundle in every worker process (gunicorn: without --preload, or in post_fork)",
                code="E-forked",
            )

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Keep other threads out.

        Raises:
            EdgepureError: this process was forked from the one that opened the engines.
        """
        self.check_process()  # before the lock is taken: whoever held it does not exist in a forked process
        me = threading.get_ident()
        while not self._depth and self._last == me and self.wanted:
            time.sleep(0.0005)  # locks of Python are not fair: whoever asks again at once would get it again
        self._waiting.add(me)
        try:
            self._lock.acquire()
        finally:
            self._waiting.discard(me)
        try:
            self._last, self._depth = me, self._depth + 1
            yield
        finally:
            self._depth -= 1
            self._lock.release()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other threads out, and callbacks of this one too: the slots hold the images of one run.

        Raises:
            EdgepureError: a run of this thread is going on, or as `shared`.
        """
        with self.shared():
            if self._running:
                raise EdgepureError(
                    "the purifier is at work in this thread, so a callback or signal handler cannot purify or close; "
                    "do it afterwards, or with another purifier",
                    code="E-in-use",
                )
            self._running = True
            try:
                yield
            finally:
                self._running = False
