"""One comparison of one output: its numbers, its tolerance, its verdict."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..intervals import clopper_pearson
from ..report.numerals import number
from .differences import Difference, MaskDifference
from .tolerances import DECISION_CONFIDENCE, Tolerance


@dataclass(frozen=True)
class OutputCheck:
    """One comparison of one output.

    Attributes:
        subject: ``graph step``, ``rows uniform``, ``pipeline uniform`` or ``decisions uniform``.
        quantity: the output that was compared.
        max_error, mean_error: absolute differences; for masks and decisions the share that is proven to differ, and
            the share that does.
        tolerance: bound of ``max_error``.
        relative_l2, relative_tolerance: relative L2 norm of the difference and its bound; None where it means nothing.
        cosine: of the angle between output and reference; None likewise.
        iou, pixels: of masks: intersection over union, and how many pixels differ.
        problem: why nothing could be compared; then the check has failed.
    """

    subject: str
    quantity: str
    max_error: float
    mean_error: float
    tolerance: float
    relative_l2: float | None = None
    relative_tolerance: float | None = None
    cosine: float | None = None
    iou: float | None = None
    pixels: int | None = None
    problem: str = ""

    def __bool__(self) -> bool:
        if self.problem or not self.max_error <= self.tolerance:  # NaN is not
            return False
        if self.relative_tolerance is None:
            return True
        return self.relative_l2 is not None and self.relative_l2 <= self.relative_tolerance

    def __str__(self) -> str:
        what = f"{self.quantity} of {self.subject}"
        if self.problem:
            return f"{what}: {self.problem}"
        if self.max_error <= self.tolerance and self.relative_tolerance is not None and not self:
            found = "an unknown amount" if self.relative_l2 is None else number(self.relative_l2)
            return f"{what}: off by {found} (relative L2), allowed {number(self.relative_tolerance)}"
        return f"{what}: off by {number(self.max_error)}, allowed {number(self.tolerance)}"

    @property
    def used(self) -> float:
        """Share of the tolerance that is used; infinite if nothing could be compared."""
        if self.problem:
            return float("inf")
        shares = [_share(self.max_error, self.tolerance)]
        if self.relative_tolerance is not None and self.relative_l2 is not None:
            shares.append(_share(self.relative_l2, self.relative_tolerance))
        return max(shares)

    def to_json(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**asdict(self), "ok": bool(self)}


def array_check(subject: str, quantity: str, found: Difference, tolerance: Tolerance) -> OutputCheck:
    """A check of an array against its tolerance."""
    return OutputCheck(
        subject, quantity, found.max_abs, found.mean_abs, tolerance.max_abs * max(1.0, found.scale),
        found.relative_l2, tolerance.relative_l2, found.cosine,
    )  # fmt: skip


def mask_check(subject: str, found: MaskDifference, share: float, problem: str = "") -> OutputCheck:
    """A check of a mask: it must not be proven that more than ``share`` of its pixels differ. Of a small mask a few
    pixels at the cut, which change places by rounding, are a large share and prove nothing."""
    proven = clopper_pearson(found.pixels, max(found.of, 1), DECISION_CONFIDENCE)[0]
    differs = found.pixels / max(found.of, 1)
    return OutputCheck(subject, "mask", proven, differs, share, iou=found.iou, pixels=found.pixels, problem=problem)


def failed_check(subject: str, quantity: str, problem: str) -> OutputCheck:
    """A check that could not be made, which is a failure."""
    return OutputCheck(subject, quantity, float("nan"), float("nan"), 0.0, problem=problem)


def _share(value: float, bound: float) -> float:
    if value != value:
        return float("inf")
    return value / bound if bound > 0.0 else (0.0 if value <= 0.0 else float("inf"))
