"""What a decision may cost, and how many rows that leaves for each purification."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from edgepure.errors import ConfigError


class Budget(Protocol):
    """A limit on the cost of one decision of one image, all its votes and probes included."""

    @property
    def limit(self) -> float:
        """The most that a decision may cost, in `unit`."""
        ...

    @property
    def unit(self) -> str:
        """``UNet calls`` or ``ms``."""
        ...

    def rows(self, votes: int, probe_calls: int = 0) -> int:
        """The most rows that each of ``votes`` purifications may have beside a probe of that many calls; 0: none."""
        ...

    def cost_of(self, rows: int) -> float:
        """What one purification of that many rows costs, in `unit`."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for the study and the evidence."""
        ...


@dataclass(frozen=True)
class CallBudget:
    """At most ``calls`` UNet calls a decision. The same on every device, and known before anything runs."""

    calls: int

    def __post_init__(self) -> None:
        if self.calls < 1:
            raise ConfigError(
                f"a budget of {self.calls} UNet calls cannot be met: the smallest possible is 1; give at least that",
                code="E-tune-budget-calls",
            )

    @property
    def limit(self) -> float:
        return float(self.calls)

    @property
    def unit(self) -> str:
        return "UNet calls"

    def rows(self, votes: int, probe_calls: int = 0) -> int:
        return max(0, (self.calls - probe_calls) // votes)

    def cost_of(self, rows: int) -> float:
        return float(rows)

    def to_dict(self) -> dict[str, Any]:
        return {"calls": self.calls}


@dataclass(frozen=True)
class TimeBudget:
    """At most ``ms`` milliseconds a decision on this device, one image at a time.

    ``call_ms``: measured milliseconds of a UNet call by the number of votes that share it. ``overhead_ms``: what a
    decision takes beside its calls (classifier, noise). They only bound the search; the latency of every preset is
    measured.
    """

    ms: float
    overhead_ms: float
    call_ms: Mapping[int, float]

    def __post_init__(self) -> None:
        if not 0.0 < self.ms < math.inf:
            raise ConfigError(
                f"a budget of {self.ms:g} ms cannot be met: give a number above 0", code="E-tune-budget-ms"
            )

    @property
    def limit(self) -> float:
        return self.ms

    @property
    def unit(self) -> str:
        return "ms"

    def rows(self, votes: int, probe_calls: int = 0) -> int:
        left = self.ms - self.overhead_ms - probe_calls * self._call(1)
        return max(0, math.floor(left / self._call(votes)))

    def cost_of(self, rows: int) -> float:
        return self.overhead_ms + rows * self._call(1)

    def to_dict(self) -> dict[str, Any]:
        return {
            "ms": self.ms,
            "overhead_ms": self.overhead_ms,
            "call_ms": {str(votes): value for votes, value in self.call_ms.items()},
        }

    def _call(self, votes: int) -> float:
        """Linear between the measured batches, and in proportion beyond the largest."""
        sizes = sorted(self.call_ms)
        if votes >= sizes[-1]:
            return self.call_ms[sizes[-1]] * votes / sizes[-1]
        above = next(size for size in sizes if size >= votes)
        below = max((size for size in sizes if size <= votes), default=above)
        if above == below:
            return self.call_ms[above]
        weight = (votes - below) / (above - below)
        return (1.0 - weight) * self.call_ms[below] + weight * self.call_ms[above]
