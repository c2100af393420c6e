"""One image on its way through a `Service`."""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from enum import Enum
from time import monotonic
from typing import Any

from ..errors import OverdueError
from ..rows.noise import NoiseSource
from ..types import Float32
from .results import Purified

#: Of five images that enter the slots while both classes wait, at least one is ordinary: urgent ones cannot starve it.
_URGENT_IN_A_ROW = 4


class Status(Enum):
    """Where a submission is. It only goes forward."""

    WAITING = "waiting for a slot"
    RUNNING = "in the slots"
    DONE = "has its result, its error, or was cancelled"


class ResultFuture(Future[Any]):
    """A future whose callbacks cannot end the thread that gives the results out, not by ``sys.exit()`` either."""

    def add_done_callback(self, fn: Callable[[Future[Any]], object]) -> None:
        def guarded(future: Future[Any]) -> None:
            try:
                fn(future)
            except Exception:
                raise  # concurrent.futures logs these
            except BaseException:
                threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread())))

        super().add_done_callback(guarded)


@dataclass(eq=False)
class Submission:
    """One image: float32 ``[C, H, W]`` in [0, 1], and the future of its result.

    Its future stays pending while it is in the slots, so that it can be cancelled there too.

    Attributes:
        deadline: by `time.monotonic`, from when on nobody wants the result.
        urgent: it goes before those that are not.
    """

    image: Float32
    name: str
    source: NoiseSource
    future: Future[Any] = field(default_factory=ResultFuture)
    status: Status = Status.WAITING
    deadline: float | None = None
    urgent: bool = False

    def start(self) -> bool:
        """It enters the slots now; false if nobody wants it any more."""
        if self.over():
            return False
        self.status = Status.RUNNING
        return True

    def over(self) -> bool:
        """Whether nobody waits for it: it has its result or its error, was cancelled, or is overdue."""
        if self.status is Status.DONE:
            return True
        if self.future.cancelled():
            self.status = Status.DONE
            self.future.set_running_or_notify_cancel()  # wakes those who wait for it by other means
            return True
        if self.deadline is not None and monotonic() > self.deadline:
            self.finish(
                OverdueError(
                    "the deadline of the image passed before it was purified; "
                    "give it more time, or ask when less is waiting",
                    code="E-deadline-passed",
                )
            )
            return True
        return False

    def finish(self, found: Purified | BaseException) -> None:
        """Give out its result, or the error instead, unless it has one already."""
        if self.status is Status.DONE:
            return
        self.status = Status.DONE
        give: Callable[[Any], None] = (
            self.future.set_exception if isinstance(found, BaseException) else self.future.set_result
        )
        try:
            give(found)
        except InvalidStateError:
            if self.future.cancelled():  # since it was looked at: as in `over`
                self.future.set_running_or_notify_cancel()


class Line:
    """Submissions that wait for a slot: first come, first served, urgent ones first."""

    def __init__(self) -> None:
        self._ordinary: deque[Submission] = deque()
        self._urgent: deque[Submission] = deque()
        self._in_a_row = 0

    def __iter__(self) -> Iterator[Submission]:
        yield from (*self._urgent, *self._ordinary)

    def __len__(self) -> int:
        """Those that somebody still waits for."""
        return sum(not submission.future.done() for submission in self)

    def length(self) -> int:
        """Of the line, with those that nobody waits for any more."""
        return len(self._urgent) + len(self._ordinary)

    def before_urgent(self) -> int:
        """How many go before the next urgent one."""
        return len(self._urgent) + len(self._urgent) // _URGENT_IN_A_ROW

    def add(self, submission: Submission) -> None:
        """The last of its class."""
        (self._urgent if submission.urgent else self._ordinary).append(submission)

    def take(self) -> Submission | None:
        """The next that somebody still wants, which enters the slots now. None: there is none."""
        while (submission := self.pop()) is not None:
            if submission.start():
                return submission
        return None

    def pop(self) -> Submission | None:
        """The next: an urgent one, but not more than a few in a row while others wait. None: there is none."""
        if self._urgent and (self._in_a_row < _URGENT_IN_A_ROW or not self._ordinary):
            self._in_a_row += 1
            return self._urgent.popleft()
        self._in_a_row = 0
        return self._ordinary.popleft() if self._ordinary else None
