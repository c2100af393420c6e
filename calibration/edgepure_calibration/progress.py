"""How far long work is, in whatever unit its cost is estimated: UNet calls, mostly."""

from __future__ import annotations

from edgepure.types import Progress


class Meter:
    """Counts work that is done against all of it, and reports the share.

    Work that an earlier run has left finished is no work: it leaves the total, so that the time that is left follows
    from what this run does.

    Args:
        total: all the work, as far as it can be foreseen.
        report: is told; None: nobody is.
    """

    def __init__(self, total: float, report: Progress | None = None) -> None:
        self._total, self._done, self._report = max(float(total), 1e-9), 0.0, report
        self._shown = 0.0

    def show(self, under_way: float, words: str) -> None:
        """So much of the next piece of work is done."""
        self._tell(self._done + under_way, words)

    def add(self, amount: float, words: str) -> None:
        """A piece of work is done."""
        self._done += amount
        self._tell(self._done, words)

    def known(self, amount: float, words: str) -> None:
        """A piece of work was done by an earlier run."""
        self._total = max(self._total - amount, self._done, 1e-9)
        self._tell(self._done, words)

    def expect(self, amount: float) -> None:
        """There is more to do than was foreseen."""
        self._total += amount

    def _tell(self, done: float, words: str) -> None:
        if self._report is not None:
            self._shown = max(self._shown, min(done / self._total, 1.0))
            self._report(self._shown, words)
