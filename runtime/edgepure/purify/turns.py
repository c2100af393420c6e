"""Who may use the engines of a purifier at the moment: one thread of the process that opened them, for one run."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import EdgepureError


class Turns:
    """Turns at engines. Threads wait for each other; what could only give wrong results or hang is an error."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._running = False
        self._process = os.getpid()

    @property
    def forked(self) -> bool:
        """Whether this process is a child of the one that opened the engines."""
        return os.getpid() != self._process

    def check_process(self) -> None:
        """Raise EdgepureError if this process was forked from the one that opened the engines."""
        if self.forked:
            raise EdgepureError(
                "this purifier was opened before the process was forked, and engines do not survive that; open the "
                "bundle in every worker process (gunicorn: without --preload, or in post_fork)"
            )

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Keep other threads out.

        Raises:
            EdgepureError: this process was forked from the one that opened the engines.
        """
        self.check_process()  # before the lock is taken: whoever held it does not exist in a forked process
        with self._lock:
            yield

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
                    "do it afterwards, or with another purifier"
                )
            self._running = True
            try:
                yield
            finally:
                self._running = False
