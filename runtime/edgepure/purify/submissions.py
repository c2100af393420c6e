"""One image on its way through a `Service`."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from ..rows.noise import NoiseSource
from ..types import Float32
from .results import Result


class Status(Enum):
    """Where a submission is. It only goes forward."""

    WAITING = "waiting for a slot"
    RUNNING = "in the slots"
    DONE = "has its result, its error, or was cancelled"


class ResultFuture(Future[Result]):
    """A future whose callbacks cannot end the thread that gives the results out, not by ``sys.exit()`` either."""

    def add_done_callback(self, fn: Callable[[Future[Result]], object]) -> None:
        def guarded(future: Future[Result]) -> None:
            try:
                fn(future)
            except Exception:
                raise  # concurrent.futures logs these
            except BaseException:
                threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread())))

        super().add_done_callback(guarded)


@dataclass(eq=False)
class Submission:
    """One image: float32 ``[C, H, W]`` in [0, 1], and the future of its result."""

    image: Float32
    name: str
    source: NoiseSource
    future: Future[Result] = field(default_factory=ResultFuture)
    status: Status = Status.WAITING

    def start(self) -> bool:
        """It enters the slots now; false if it has been cancelled."""
        running = self.future.set_running_or_notify_cancel()
        self.status = Status.RUNNING if running else Status.DONE
        return running

    def finish(self, found: Result | BaseException) -> None:
        """Give out its result, or the error instead, unless it has one already."""
        if self.status is Status.DONE:
            return
        self.status = Status.DONE
        give: Callable[[Any], None] = (
            self.future.set_exception if isinstance(found, BaseException) else self.future.set_result
        )
        give(found)
