"""Is a variant faster on this device? Step calls of fp32 and of the variant, side by side in the same rounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edgepure.engines.base import Stepper
from edgepure.measure import interleaved
from edgepure.purify.purifier import Purifier
from edgepure.rows.plan import Plan

#: Rounds, and about how many seconds of fp32 calls each of them has.
ROUNDS, ROUND_SECONDS = 15, 0.05


@dataclass(frozen=True)
class Speed:
    """One step call at one batch size: median milliseconds, and the median of fp32's time over the variant's."""

    batch: int
    fp32_ms: float
    variant_ms: float
    ratio: float

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def compare_speed(
    fp32: Purifier,
    variant: Purifier,
    plan: Plan,
    batches: Sequence[int],
    rounds: int = ROUNDS,
    on_progress: Callable[[float], None] | None = None,
) -> tuple[Speed, ...]:
    """Time the step graph that ``plan`` uses at each batch size (at most the purifiers' slots)."""
    graph = plan.graph
    found = []
    for number, batch in enumerate(batches):
        calls = {
            "fp32": step_calls(fp32.stepper(graph), plan, batch),
            "variant": step_calls(variant.stepper(graph), plan, batch),
        }
        once = interleaved({"fp32": lambda calls=calls: calls["fp32"](1)}, 3).median("fp32")  # type: ignore[misc]
        many = max(1, round(ROUND_SECONDS / max(once, 1e-6)))
        times = interleaved(
            {name: lambda call=call, many=many: call(many) for name, call in calls.items()},  # type: ignore[misc]
            rounds,
        )
        found.append(
            Speed(
                batch,
                1e3 * times.median("fp32") / many,
                1e3 * times.median("variant") / many,
                times.ratio("fp32", "variant"),
            )
        )
        if on_progress is not None:
            on_progress((number + 1) / len(batches))
    return tuple(found)


def step_calls(stepper: Stepper, plan: Plan, batch: int) -> Callable[[int], None]:
    """A function that makes a number of step calls on random images."""
    rng = np.random.default_rng(0)
    images = rng.uniform(-1.0, 1.0, (batch, *stepper.image_shape)).astype(np.float32)
    _, height, width = stepper.image_shape
    mask = np.zeros((1, height, width), np.float32)
    mask[:, : height // 2] = 1.0

    def run(count: int) -> None:
        for slot, image in enumerate(images):
            stepper.admit(slot, image, image, mask)
        for call in range(count):
            row = plan.coeffs[call % len(plan.rows)]
            stepper.coeffs[:batch] = 0.0
            stepper.coeffs[:batch, : len(row)] = row
            stepper.step(batch)
        stepper.wait()

    return run
