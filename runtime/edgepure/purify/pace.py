"""How fast the slots have been of late: what a deadline is compared with."""

from __future__ import annotations

import time


class Pace:
    """How long an image takes at the pace of the last ticks: what a deadline is compared with at the door."""

    def __init__(self, calls: int) -> None:
        self._calls = calls  # UNet calls of one decision
        self._row = 0.0  # seconds for one row of one image, in calls that others shared as they did of late
        self._last = 0.0

    def start(self) -> None:
        """The slots are filled after a pause, which is nobody's time."""
        self._last = time.perf_counter()

    def ticked(self, rows: int) -> None:
        """A call has executed so many rows."""
        now = time.perf_counter()
        seconds, self._last = (now - self._last) / rows, now
        self._row = seconds if self._row == 0.0 else self._row + 0.1 * (seconds - self._row)

    def seconds(self, ahead: int) -> float:
        """Until an image with so many before it is done; 0 before anything was measured."""
        return self._calls * self._row * (ahead + 1)
