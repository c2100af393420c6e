"""Progress on stderr, for whatever takes longer than a second: a bar on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import sys
import threading
from contextlib import suppress
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .output import note

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

#: Work that is done before this many seconds shows no progress.
QUIET_SECONDS = 1.0
#: No estimate is given before this share of the work is done: the first steps pay for what all need.
LEAST_SHARE = 0.02
#: Where stderr is a file or a pipe, one line in this many seconds.
LINE_SECONDS = 5.0


class Estimate:
    """How long it will take yet, from the pace since the first share that was told: what came before it is paid once
    (opening engines, compiling), and says nothing of what comes."""

    def __init__(self) -> None:
        self._first: tuple[float, float] | None = None
        self._last = 0.0, 0.0

    def see(self, share: float, now: float) -> None:
        """So much is done at this time, in seconds of any clock."""
        if self._first is None:
            self._first = share, now
        self._last = share, now

    def left(self) -> float | None:
        """Seconds; None as long as too little is known."""
        if self._first is None:
            return None
        (begun, start), (share, now) = self._first, self._last
        done = share - begun
        return (now - start) * (1.0 - share) / done if done >= LEAST_SHARE and done > 0.0 else None


class Progress:
    """What is going on, shown once it has taken a second; with a time estimate as soon as `update` has been called."""

    def __init__(self, what: str) -> None:
        self.what = what
        self._last_line = perf_counter()
        self._estimate = Estimate()
        self._bar: RichProgress | None = None
        self._task: Any = None
        self._lock = threading.Lock()
        self._closed = False
        self._timer = threading.Timer(QUIET_SECONDS, self._show)
        self._timer.daemon = True

    def update(self, share: float, what: str | None = None) -> None:
        """``share`` in [0, 1] of the work is done; it goes on with ``what``."""
        self.what = what or self.what
        share = min(max(share, 0.0), 1.0)
        self._estimate.see(share, perf_counter())
        if self._bar is not None:
            self._bar.update(self._task, completed=share, total=1.0, description=self.what, left=self._left())
        elif not sys.stderr.isatty():
            self._line(share)

    def _show(self) -> None:
        with self._lock:
            if self._closed:
                return
            if sys.stderr.isatty():
                self._bar, self._task = _rich_bar(self.what)
            else:
                note(f"{self.what} ...")
                self._last_line = perf_counter()

    def _line(self, share: float) -> None:
        now = perf_counter()
        if now - self._last_line < LINE_SECONDS:
            return
        self._last_line = now
        left = self._left()
        note(f"{self.what}: {100 * share:.0f} %{f', {left}' if left else ''}")

    def _left(self) -> str:
        seconds = self._estimate.left()
        return "" if seconds is None else f"about {duration(seconds)} left"

    def __enter__(self) -> Progress:
        with suppress(RuntimeError):  # no more threads: the work may go on without a picture of it
            self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        with self._lock:
            self._closed = True
            if self._bar is not None:
                self._bar.stop()


def _rich_bar(what: str) -> tuple[RichProgress, Any]:
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    bar = Bar(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
        console=Console(stderr=True),
        transient=True,
    )
    task = bar.add_task(what, total=None, left="")
    bar.start()
    return bar, task


def duration(seconds: float) -> str:
    """``3 min 20 s``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
