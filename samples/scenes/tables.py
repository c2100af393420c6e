"""What the lessons print."""

from __future__ import annotations

from edgepure_calibration.evaluate_task import TaskEvaluated
from edgepure_calibration.truth import Score


def print_rows(found: TaskEvaluated) -> None:
    """Each defence: clean images, those attacked without it, and those attacked through it."""
    for row in found.rows:
        print(
            f"{row.preset or 'no purification'}, {row.unet_calls} UNet calls: {row.clean.name} of clean images "
            f"{percent(row.clean)}"
        )
        if row.preset is not None:
            print(f"  of images attacked without it {percent(row.transferred)}")
        print(f"  of images attacked through it {percent(row.attacked)}")


def percent(score: Score) -> str:
    """The value and its interval."""
    return f"{100 * score.value:.0f} % ({100 * score.low:.0f} % to {100 * score.high:.0f} %)"
