"""How far a tuning run is: what is left is foreseen from what the trials so far have cost."""

from __future__ import annotations

from collections.abc import Sequence

from edgepure.types import Progress

from ..progress import Meter
from .budget import Budget
from .candidate import Candidate
from .measuring import Measuring
from .points import Point


class Foresight:
    """The work of the search and of the finalists in UNet calls, gradients counted as several.

    Args:
        search, final: how trials and finalists are measured.
        trials: in all.
        finalists: about how many candidates are measured again, references included.
        harder: about how many of them are attacked again with twice the steps.
        budget: what a candidate costs at most; most cost less.
        usual: some candidate of the bundle, whose price a call is taken for that of all.
        report: is told the share.
    """

    def __init__(
        self,
        search: Measuring,
        final: Measuring,
        trials: int,
        finalists: int,
        harder: int,
        budget: Budget,
        usual: Candidate,
        report: Progress | None,
    ) -> None:
        self._search, self._trials, self._costs = search, trials, list[float]()
        calls = max(1, round(0.6 * budget.rows(1)))
        each = [measuring.cost(usual) / measuring.graphs.calls(usual) * calls for measuring in (search, final)]
        self._mean, self._finals, self._harder = each[0], finalists * each[1], harder * 2.0 * each[1]
        self._meter = Meter(trials * self._mean + self._finals + self._harder, report)

    def found(self, points: Sequence[Point]) -> None:
        """Trials that an earlier run has measured."""
        for _ in points:
            self._meter.known(self._mean, "trials of an earlier run")
            self._trials -= 1

    def trial(self, number: int, of: int) -> None:
        """A trial begins."""
        self._meter.show(0.0, f"trial {number} of {of}")

    def measured(self, point: Point) -> None:
        """A trial is measured: what the others will cost follows from the mean so far."""
        cost = self._search.cost(point.candidate, attack=not point.dropped)
        self._costs.append(cost)
        mean = sum(self._costs) / len(self._costs)
        left = self._trials - len(self._costs)
        self._meter.expect(cost - self._mean + left * (mean - self._mean))
        self._mean = mean
        self._meter.add(cost, "searching")

    def final(self, cost: float) -> Meter:
        """The meter of the finalists, whose whole cost is known now."""
        self._meter.expect(cost - self._finals)
        self._finals = cost
        return self._meter

    def harder(self, cost: float) -> Meter:
        """The meter of the longer attacks on the chosen presets."""
        self._meter.expect(cost - self._harder)
        return self._meter
