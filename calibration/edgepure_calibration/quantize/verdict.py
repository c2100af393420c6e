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
        flips: the upper bound (95 %, one-sided) of the share of decisions that it flips may lie this far above the
            share that new noise flips.
        accuracy: the upper bound (95 %, one-sided) of the accuracy that it loses, on clean and on attacked images.
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
        images: they are what is independent, see `edgepure_calibration.quantize.gate.share_bounds`.
        decisions: purifications that were classified: images x noises.
        flipped: decisions that the variant changes, with the same noise.
        high: upper end of the 95 % bound (one-sided) of their share, by image.
        redrawn: decisions that differ between two noises in fp32.
        accuracy, accuracy_fp32: share of decisions that are right; None without labels.
        loss_high: upper end of the 95 % bound (one-sided) of the accuracy that is lost, by image; None without labels.
    """

    images: int
    decisions: int
    flipped: int
    high: float
    redrawn: int
    accuracy: float | None = None
    accuracy_fp32: float | None = None
    loss_high: float | None = None


@dataclass(frozen=True)
class PresetGate:
    """What the gate found for one preset.

    Attributes:
        flips: by data set, ``clean`` and ``attacked``.
        drift: root mean square of (variant - fp32) after each row, in units of the model's range.
        redraw_drift: the same between two noises in fp32.
        failure: why it could not be measured (NaN or infinite values); empty if it could.
    """

    preset: str
    flips: Mapping[str, Flips]
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
