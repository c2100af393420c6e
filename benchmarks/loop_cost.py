"""Loop cost: the time of a whole purification over (rows x bare UNet call)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

import edgepure
from edgepure.measure import BareUnet, interleaved
from edgepure.purify.inflight import InFlight, Job
from edgepure.rows.noise import SeededNoise


def measure(
    purifier: edgepure.Purifier, preset: str | Mapping[str, Any], image: np.ndarray, repeats: int
) -> dict[str, object]:
    """Batch 1. The purification draws its noise, runs every row and hands the image back."""
    plan = purifier.plan(preset)
    bare = BareUnet(purifier.engine("unet"), batch=1)
    stepper = purifier.stepper("step")
    source = SeededNoise(1)
    mask = np.zeros((1, *purifier.image_shape[1:]), np.float32)
    mask[:, : mask.shape[1] // 2] = 1.0
    ref = 2.0 * image - 1.0

    def purify() -> None:
        noise = source.for_image(plan, 0, 0, mask, purifier.image_shape)
        InFlight(stepper).run([Job(plan, noise, ref, mask)], lambda job, x: None)

    def calls() -> None:
        for row in range(plan.unet_calls):
            bare(float(plan.coeffs[row, 0]))
        bare.wait()

    times = interleaved({"purify": purify, "calls": calls}, repeats)
    return {
        "loop_cost": times.ratio("purify", "calls"),
        "unet_calls": plan.unet_calls,
        "bare_call_ms": 1e3 * times.median("calls") / plan.unet_calls,
        "purification_ms": 1e3 * times.median("purify"),
    }
