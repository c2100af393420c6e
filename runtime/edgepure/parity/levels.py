"""The four levels of a verification, each a list of comparisons that can be asked.

Everything here is ``bool`` for the verdict, ``str`` for the one-line story and ``to_json()`` for plain data. What could
not be compared is listed by name; an absent comparison never counts as a success.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from .checks import OutputCheck
from .decisions import LabelFlips
from .drift import Drift
from .tasks import TaskAgreement

#: passed or failed: something was compared. not recorded: the bundle has no vectors for this level. not run: it was
#: left out, or a level below failed in a way that makes it impossible.
Status = Literal["passed", "failed", "not recorded", "not run"]
#: What a level is made of.
Comparison = OutputCheck | Drift | LabelFlips | TaskAgreement


@dataclass(frozen=True)
class Level:
    """One of the four levels.

    Attributes:
        number: 1 to 4.
        title: graphs, rows, images or decisions.
        parts: the comparisons.
        missing: what was not compared and why, one sentence each.
        absent: what the level is called if there is nothing in it.
    """

    number: int
    title: str
    parts: tuple[Comparison, ...] = ()
    missing: tuple[str, ...] = ()
    absent: Status = "not recorded"

    @property
    def status(self) -> Status:
        """See `Status`."""
        if not self.parts:
            return self.absent
        return "passed" if all(self.parts) else "failed"

    def __bool__(self) -> bool:
        return self.status == "passed"

    def __str__(self) -> str:
        failed = [part for part in self.parts if not part]
        story = "; ".join(str(part) for part in failed[:1]) if failed else f"{len(self.parts)} comparisons"
        if not self.parts:
            story = "; ".join(self.missing) or "nothing to compare"
        return f"level {self.number}, {self.title}: {self.status} ({story})"

    @property
    def checks(self) -> tuple[OutputCheck, ...]:
        """The level as lines of a table: one for each trajectory and each set of decisions."""
        return tuple(_line(part) for part in self.parts)

    def to_json(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "level": self.number, "title": self.title, "status": self.status, "ok": bool(self),
            "comparisons": [part.to_json() for part in self.parts], "missing": list(self.missing),
        }  # fmt: skip


def _line(part: Comparison) -> OutputCheck:
    if isinstance(part, Drift):
        return part.worst
    return part.check if isinstance(part, LabelFlips | TaskAgreement) else part
