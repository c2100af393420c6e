"""Level 4: do the labels stay, beyond what another draw of the noise changes anyway?"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..intervals import clopper_pearson
from ..report.numerals import percent
from .checks import OutputCheck
from .executors import PresetRun
from .tolerances import DECISION_CONFIDENCE, FLIPS, TIE


@dataclass(frozen=True, eq=False)
class LabelFlips:
    """Labels of the deployment beside those of the reference: one purification of each image, with the same noise.

    Attributes:
        preset: which one.
        data: ``self-test``, ``clean`` or ``attacked``.
        reference, deployed: labels ``[N]``.
        redrawn: ``[N]`` bool, another noise seed changes the label too; None if that was not run.
        tied: ``[N]`` bool, the reference's two highest logits are closer than fp32 engines agree.
        allowed: share of flips beyond redraws and ties that is allowed.
        margin_shifts: ``[N]``, by how much the deployment moves the margin of the reference's label over the best other
            one (logits).
        redraw_shifts: the same for a redraw, which says how large a shift the method itself makes.
        labels: the true ones ``[N]``, if they are known.
    """

    preset: str
    data: str
    reference: NDArray[np.int64]
    deployed: NDArray[np.int64]
    redrawn: NDArray[np.bool_] | None
    tied: NDArray[np.bool_]
    allowed: float
    margin_shifts: NDArray[np.float64] = field(repr=False)
    redraw_shifts: NDArray[np.float64] | None = field(repr=False, default=None)
    labels: NDArray[np.int64] | None = None

    @property
    def images(self) -> int:
        """N."""
        return len(self.reference)

    @property
    def flips(self) -> int:
        """Labels that differ with the same noise."""
        return int((self.reference != self.deployed).sum())

    @property
    def redraw_flips(self) -> int | None:
        """Labels that differ when only the noise does: the method's own randomness."""
        return None if self.redrawn is None else int(self.redrawn.sum())

    @property
    def beyond(self) -> int:
        """Flips of images whose label a redraw leaves alone and whose two best logits are not tied."""
        stable = ~self.tied if self.redrawn is None else ~self.tied & ~self.redrawn
        return int(((self.reference != self.deployed) & stable).sum())

    @property
    def interval(self) -> tuple[float, float]:
        """Clopper-Pearson interval of the share of `beyond`."""
        return clopper_pearson(self.beyond, self.images, DECISION_CONFIDENCE)

    def __bool__(self) -> bool:
        return self.interval[0] <= self.allowed

    def __str__(self) -> str:
        low, high = self.interval
        few = ", too few to say much" if self.images < 100 else ""
        redraws = "" if self.redraw_flips is None else f" (a redraw alone flips {self.redraw_flips})"
        bound = f"beyond redraws and ties {self.beyond}, at most {percent(high)} %"
        if not self:
            bound = (
                f"{self.beyond} beyond redraws and ties: at least {percent(low)} %, allowed {100 * self.allowed:g} %"
            )
        return f"{self.preset}, {self.data}: {self.flips} of {self.images} labels flip{redraws}; {bound}{few}"

    @property
    def check(self) -> OutputCheck:
        """The verdict as one line of a table: the share of flips beyond redraws and ties that the data prove."""
        subject = f"decisions {self.preset} ({self.data})"
        return OutputCheck(subject, "flips shown", self.interval[0], self.flips / self.images, self.allowed)

    def to_json(self) -> dict[str, Any]:
        """Plain data for JSON."""
        data: dict[str, Any] = {
            "preset": self.preset, "data": self.data, "ok": bool(self), "images": self.images, "flips": self.flips,
            "agreement": 1.0 - self.flips / self.images, "redraw_flips": self.redraw_flips,
            "ties": int(self.tied.sum()), "beyond": self.beyond, "allowed": self.allowed,
            "interval": list(self.interval), "confidence": DECISION_CONFIDENCE,
            "margin_shift": _summary(self.margin_shifts), "redraw_shift": _summary(self.redraw_shifts),
        }  # fmt: skip
        if self.labels is not None:
            data["accuracy_reference"] = float((self.reference == self.labels).mean())
            data["accuracy_deployed"] = float((self.deployed == self.labels).mean())
        return data


def compare_decisions(
    preset: str,
    data: str,
    reference: PresetRun,
    deployed: PresetRun,
    precision: str,
    redraw: tuple[PresetRun, PresetRun] | None = None,
    labels: NDArray[np.int64] | None = None,
) -> LabelFlips:
    """Labels and margins of two runs with the same noise. ``redraw``: two runs of one executor with different noise."""
    two = np.partition(reference.logits.astype(np.float64), -2, axis=1)[:, -2:]
    tied = two[:, 1] - two[:, 0] < TIE * np.maximum(1.0, np.abs(two).max(axis=1))
    shifts = _margins(deployed, reference.labels) - _margins(reference, reference.labels)
    redrawn, redraw_shifts = None, None
    if redraw is not None:
        once, again = redraw
        redrawn = once.labels != again.labels
        redraw_shifts = _margins(again, once.labels) - _margins(once, once.labels)
    return LabelFlips(
        preset, data, reference.labels, deployed.labels, redrawn, tied, FLIPS[precision], shifts, redraw_shifts, labels
    )  # fmt: skip


def _margins(run: PresetRun, labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Logit of ``labels`` over the best other one."""
    logits, rows = run.logits.astype(np.float64), np.arange(len(labels))
    own = logits[rows, labels]
    others = logits.copy()
    others[rows, labels] = -np.inf
    result: NDArray[np.float64] = own - others.max(axis=1)
    return result


def _summary(values: NDArray[np.float64] | None) -> dict[str, float] | None:
    if values is None or not len(values):
        return None
    return {
        "mean": float(values.mean()), "mean_abs": float(np.abs(values).mean()), "std": float(values.std()),
        "max_abs": float(np.abs(values).max()), "p05": float(np.quantile(values, 0.05)),
        "p95": float(np.quantile(values, 0.95)),
    }  # fmt: skip
