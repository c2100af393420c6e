"""What the gate of a variant asks for, and what it found."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Limits:
    """What a variant may cost.

    Attributes:
        flips: the upper bound (95 %, one-sided) of how much larger the share of decisions that it flips is than the
            share that new noise flips. Of a task: of the mean of 1 - agreement, likewise.
        accuracy: the upper bound (95 %, one-sided) of the accuracy that it loses, on clean and on attacked images. Of a
            task: of the mIoU, mAP or recall.
        drift: difference of its trajectories from those of fp32, as a share of the difference that new noise makes.
        speed: fp32's time over the variant's, at least.
    """

    flips: float = 0.01
    accuracy: float = 0.01
    drift: float = 0.5
    speed: float = 1.0

    def images_needed(self, labelled: bool = True) -> int:
        """Fewest images with which a variant that flips nothing can pass: redraws of one image are no more images.

        ``labelled``: their accuracy is judged too.
        """
        strictest = min(self.flips, self.accuracy) if labelled else self.flips
        return math.ceil(math.log(0.05) / math.log1p(-strictest)) if 0.0 < strictest < 1.0 else 1


@dataclass(frozen=True)
class Check:
    """One comparison of the gate; ``passed`` says whether ``value`` keeps to ``limit``."""

    name: str
    value: float
    limit: float
    passed: bool
    sentence: str


@dataclass(frozen=True)
class Flips:
    """Decisions of one data set.

    Attributes:
        images: they are what is independent, see `edgepure_calibration.bounds`.
        decisions: purifications that were classified: images x noises.
        flipped: decisions that the variant changes, with the same noise.
        high: upper end of the 95 % bound (one-sided) of their share, by image.
        redrawn: decisions that differ between two noises in fp32.
        beyond_high: upper end of the 95 % bound (one-sided) of the share that the variant flips minus the share that
            new noise flips, by image.
        accuracy, accuracy_fp32: share of decisions that are right; None without labels.
        loss_high: upper end of the 95 % bound (one-sided) of the accuracy that is lost, by image; None without labels.
    """

    images: int
    decisions: int
    flipped: int
    high: float
    redrawn: int
    beyond_high: float
    accuracy: float | None = None
    accuracy_fp32: float | None = None
    loss_high: float | None = None


@dataclass(frozen=True)
class Agreed:
    """Answers of a task of one data set.

    Attributes:
        images: as of `Flips`.
        answers: images x noises.
        term: how two answers are compared: ``box agreement``, ``mIoU`` or ``cosine`` (`edgepure.parity.tasks`).
        agreement: mean of the variant's answers and those of fp32 with the same noise.
        high: upper end of the 95 % bound (one-sided) of 1 - agreement, by image.
        redrawn: mean of 1 - agreement of two noises in fp32.
        beyond_high: as of `Flips`.
        metric: what is counted against the truth: ``mIoU``, ``mAP at 0.5`` or ``recall at 1``; None without it.
        value, value_fp32: of it, the mean over the noises; None likewise.
        loss_high: upper end of the 95 % bound (one-sided, by image) of what is lost; None likewise.
    """

    images: int
    answers: int
    term: str
    agreement: float
    high: float
    redrawn: float
    beyond_high: float
    metric: str | None = None
    value: float | None = None
    value_fp32: float | None = None
    loss_high: float | None = None


Changes = Flips | Agreed


@dataclass(frozen=True)
class PresetGate:
    """What the gate found for one preset.

    Attributes:
        flips: what changes by data set, ``clean`` and ``attacked``: decisions, or the answers of a task.
        drift: root mean square of (variant - fp32) after each row, in units of the model's range.
        redraw_drift: the same between two noises in fp32.
        failure: why it could not be measured (NaN or infinite values); empty if it could.
    """

    preset: str
    flips: Mapping[str, Changes]
    drift: tuple[float, ...]
    redraw_drift: tuple[float, ...]
    checks: tuple[Check, ...]
    failure: str = ""

    @property
    def passed(self) -> bool:
        """Whether all checks hold."""
        return not self.failure and all(check.passed for check in self.checks)

    @property
    def reasons(self) -> list[str]:
        """One sentence for each thing that fails."""
        failed = [f"preset {self.preset}: {check.sentence}" for check in self.checks if not check.passed]
        return [*failed, f"preset {self.preset}: {self.failure}"] if self.failure else failed

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**asdict(self), "passed": self.passed}


def check(name: str, value: float, limit: float, sentence: str) -> Check:
    """A `Check` that passes if ``value`` is at most ``limit``, which NaN is not."""
    return Check(name, float(value), float(limit), bool(value <= limit), sentence)
