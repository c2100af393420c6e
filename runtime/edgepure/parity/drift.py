"""Level 2: how the state of a trajectory leaves its reference, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import exp, log
from typing import Any

from ..rows.plan import Plan
from .checks import OutputCheck, array_check
from .differences import Difference, difference
from .executors import Trajectory
from .tolerances import Tolerance, row_tolerance


@dataclass(frozen=True)
class Drift:
    """How the state of a trajectory leaves its reference, row by row, with equal noise, mask and plan.

    Attributes:
        preset: whose rows they are, and of which images.
        images: number of images, over which the numbers are taken.
        rows: indices of the rows that were compared, from 0.
        timesteps: t of these rows (of the first image).
        states: difference of the state (model range) after each of them.
        tolerances: bounds, likewise.
    """

    preset: str
    images: int
    rows: tuple[int, ...]
    timesteps: tuple[float, ...]
    states: tuple[Difference, ...]
    tolerances: tuple[Tolerance, ...]

    @property
    def checks(self) -> tuple[OutputCheck, ...]:
        """One for each row."""
        return tuple(
            array_check(f"rows {self.preset}", f"state after row {row}", state, tolerance)
            for row, state, tolerance in zip(self.rows, self.states, self.tolerances, strict=True)
        )

    @property
    def worst(self) -> OutputCheck:
        """The row that uses most of its tolerance; the first one that fails, if any does."""
        checks = self.checks
        return next((c for c in checks if not c), max(checks, key=lambda c: c.used))

    @property
    def growth(self) -> float:
        """Factor by which the relative difference grows from row to row (geometric mean)."""
        first, last = self.states[0].relative_l2, self.states[-1].relative_l2
        steps = self.rows[-1] - self.rows[0]
        if steps == 0 or not (first > 0.0 and last > 0.0):
            return 1.0
        return exp(log(last / first) / steps)

    def __bool__(self) -> bool:
        return bool(self.checks) and all(self.checks)

    def __str__(self) -> str:
        first, last = self.states[0].relative_l2, self.states[-1].relative_l2
        story = f"{first:.1e} after row {self.rows[0]} and {last:.1e} after row {self.rows[-1]}"
        if self:
            return f"{self.preset}: the state drifts by {story} (relative L2, x {self.growth:.2f} a row)"
        return f"{self.preset}: {self.worst}; the drift is {story}"

    def to_json(self) -> dict[str, Any]:
        """Plain data for JSON."""
        rows = [
            {"row": row, "t": t, **asdict(state), "ok": bool(check), "tolerance": asdict(tolerance)}
            for row, t, state, tolerance, check in zip(
                self.rows, self.timesteps, self.states, self.tolerances, self.checks, strict=True
            )
        ]
        return {"preset": self.preset, "images": self.images, "ok": bool(self), "growth": self.growth, "rows": rows}


def compare_rows(
    preset: str, precision: str, plans: Sequence[Plan], reference: Trajectory, deployed: Trajectory
) -> Drift:
    """The states of two trajectories along the same plans, row by row."""
    return Drift(
        preset,
        len(reference.states),
        reference.rows,
        tuple(float(plans[0].rows[row].t) for row in reference.rows),
        tuple(difference(deployed.states[:, i], reference.states[:, i]) for i in range(len(reference.rows))),
        tuple(row_tolerance(precision, row) for row in reference.rows),
    )
