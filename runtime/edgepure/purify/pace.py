"""How fast the slots have been of late: what a deadline is compared with, and who enters beside whom."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

#: How much less a call counts than the one after it: the last few hundred say what calls cost.
_FORGET = 0.99
#: The first calls of a size allocate what later ones find.
_WARM = 2
#: Variance of the sizes of late; below it nothing is known but of one size.
_SPREAD = 0.05
#: What is left of a pace by which an image was refused that nobody was before.
_DOUBTED = 0.9


class Pace:
    """Seconds of a call by the rows that share it.

    Attributes:
        clock: seconds; `time.perf_counter` but in tests.
        row: seconds for one row of one image, in calls that others shared as they did of late; 0: not known.
        around: seconds that an image takes outside of the calls: its mask, its noise, its answer.
    """

    def __init__(self, calls: int) -> None:
        self.clock: Callable[[], float] = time.perf_counter
        self._calls = calls  # UNet calls of one decision
        self.row = self.around = 0.0
        self._last = self._outside = 0.0
        self._entered = 0
        self._seen: dict[int, int] = {}  # calls of so many rows
        self._sums = np.zeros(5)  # of late: calls, rows, rows^2, seconds, rows * seconds

    def start(self) -> None:
        """The slots are filled after a pause, which is nobody's time."""
        self._last = self.clock()

    def entered(self, images: int) -> None:
        """So many have come into the slots."""
        self._entered += images

    def ticked(self, rows: int, call: float) -> None:
        """A call has executed so many rows, and taken ``call`` seconds: what images cost that entered or left since the
        one before says nothing of what a row more costs."""
        now = self.clock()
        seconds, self._last = now - self._last, now
        self.row = _mixed(self.row, seconds / rows)
        self._outside += seconds - call
        if self._entered:
            self.around = _mixed(self.around, self._outside / self._entered)
            self._outside, self._entered = 0.0, 0
        self._seen[rows] = self._seen.get(rows, 0) + 1
        if self._seen[rows] > _WARM:
            line = self._line()
            taken = call if line is None else min(call, 3.0 * max(line[0] + line[1] * rows, 0.0) or call)
            self._sums *= _FORGET
            self._sums += 1.0, rows, rows * rows, taken, rows * taken

    def seconds(self, ahead: float) -> float:
        """Until an image with so many before it is done; 0 before anything was measured."""
        return self._calls * self.row * (ahead + 1)

    def doubted(self) -> None:
        """By what is known an image was refused at empty slots: so nothing new will be known. After a while of that one
        is let in, and measured; else a slow moment would refuse everybody for ever."""
        self.row *= _DOUBTED

    def joins(self, more: int, inside: int, waiting: int, left: float = 0.0) -> bool:
        """Whether an image should enter with ``more`` rows beside those of others, or wait until these are done.

        Beside them, a call takes longer for the ``inside`` images that are in it; it takes less than two calls, which
        the ``waiting`` ones gain, and those that come after them: of these at least as many count as are inside. Where
        calls cost as much a row however many share them, sharing only makes all of them wait for all. Those that have
        ``left`` calls on the way are held up by what is done around the calls of the one that enters; 0: all enter
        together. What is not known is tried: at first with all that wait, later two of them, and three where there
        were two of late.
        """
        line = self._line()
        if line is None:
            calls, rows = self._sums[:2].tolist()  # of nothing at all, or of one size
            pairs = bool(calls) and abs(rows / calls - 2 * more) < 0.5
            return inside == 1 or not calls or (inside == 2 and pairs)
        fixed, row = line
        held_up = self.around / left if left else 0.0
        return (waiting + inside) * fixed >= inside * (more * row + held_up)

    def _line(self) -> tuple[float, float] | None:
        """Seconds of a call, and of every row in it: a straight line through the calls of late (least squares). None if
        they were all of one size."""
        calls, rows, squares, seconds, products = self._sums.tolist()
        spread = calls * squares - rows * rows
        if spread <= _SPREAD * calls * calls:
            return None
        row = (calls * products - rows * seconds) / spread
        return (seconds - row * rows) / calls, row


def _mixed(known: float, seen: float) -> float:
    """What is known with one more value in it; a call during which the process was stopped, say, counts little."""
    return known + 0.1 * (min(seen, 3.0 * known) - known) if known else seen
