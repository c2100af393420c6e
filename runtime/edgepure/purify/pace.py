"""How fast the slots have been of late: what a deadline is compared with, and who enters beside whom."""

from __future__ import annotations

import time
from collections.abc import Callable

#: A call of so many rows that was not seen for so many calls is tried again: machines change.
_STALE = 1000
#: The first calls of a size allocate what later ones find.
_WARM = 2


class Pace:
    """Seconds of a call by the rows that share it.

    Attributes:
        clock: seconds; `time.perf_counter` but in tests.
    """

    def __init__(self, calls: int) -> None:
        self.clock: Callable[[], float] = time.perf_counter
        self._calls = calls  # UNet calls of one decision
        self._row = 0.0  # seconds for one row of one image, in calls that others shared as they did of late
        self._last = 0.0
        self._ticks = 0
        self._cost: dict[int, float] = {}  # of a call of so many rows
        self._seen: dict[int, list[int]] = {}  # how many calls of a size there were, and when the last one was

    def start(self) -> None:
        """The slots are filled after a pause, which is nobody's time."""
        self._last = self.clock()

    def ticked(self, rows: int) -> None:
        """A call has executed so many rows."""
        now = self.clock()
        seconds, self._last = now - self._last, now
        self._row = _mixed(self._row, seconds / rows)
        self._ticks += 1
        seen = self._seen.setdefault(rows, [0, 0])
        seen[:] = seen[0] + 1, self._ticks
        if seen[0] <= _WARM:
            return
        self._cost[rows] = _mixed(self._cost.get(rows, 0.0), seconds)

    def seconds(self, ahead: int) -> float:
        """Until an image with so many before it is done; 0 before anything was measured."""
        return self._calls * self._row * (ahead + 1)

    def joins(self, rows: int, more: int, inside: int, waiting: int) -> bool:
        """Whether an image should enter with ``more`` rows beside ``rows`` of others, or wait until these are done.

        Beside them, a call takes longer for the ``inside`` images that are in it; it takes less than two calls for the
        ``waiting`` ones that are served earlier by it. Where calls cost as much a row however many share them, sharing
        only makes all of them wait for all. What is not known is tried.
        """
        alone, own, shared = self._seconds(rows), self._seconds(more), self._seconds(rows + more)
        if alone is None or own is None or shared is None:
            return True
        return waiting * (alone + own - shared) >= inside * (shared - alone)

    def _seconds(self, rows: int) -> float | None:
        """Of a call; None if no call so large was seen of late."""
        above = min((size for size in self._cost if size >= rows), default=None)
        if above is None or self._ticks - self._seen[above][1] > _STALE:
            return None
        if above == rows:
            return self._cost[above]
        # a smaller call than any that was seen costs no more a row, at the most
        below = max((size for size in self._cost if size < rows), default=None)
        if below is None:
            return self._cost[above] * rows / above
        share = (rows - below) / (above - below)
        return (1.0 - share) * self._cost[below] + share * self._cost[above]


def _mixed(known: float, seen: float) -> float:
    """What is known with one more value in it; a call during which the process was stopped, say, counts little."""
    return known + 0.1 * (min(seen, 3.0 * known) - known) if known else seen
