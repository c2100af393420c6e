"""In-flight batching against padding, on a stream of digits whose plans differ 4:1 in length."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

import edgepure
from edgepure.measure import interleaved
from edgepure.methods import UniformSpec
from edgepure.purify.inflight import InFlight, Job
from edgepure.rows.noise import SeededNoise
from edgepure.rows.plan import Plan

#: Plans of a stream in which most images look clean: three in four need 5 UNet calls, the others up to 20.
SHORT, LONG = 5, 20


def plan_lengths(count: int, rng: np.random.Generator) -> list[int]:
    """UNet calls of each image: what SSNI gives a stream of which a quarter is attacked."""
    attacked = rng.random(count) < 0.25
    return [int(rng.integers(LONG - 4, LONG + 1)) if a else int(rng.integers(SHORT, SHORT + 4)) for a in attacked]


def measure(purifier: edgepure.Purifier, images: np.ndarray, repeats: int) -> dict[str, object]:
    """Images per second of three ways to run the same number of rows.

    ``inflight``: slots refill as images finish. ``padded``: batches in order of arrival, each runs as long as its
    longest plan. ``equal``: in-flight with all plans of the mean length.
    """
    stepper = purifier.stepper("step")
    lengths = plan_lengths(len(images), np.random.default_rng(0))
    mean = round(sum(lengths) / len(lengths))
    elements = int(np.prod(purifier.image_shape))
    plans = {n: UniformSpec(t_star=10 * n, steps=n).compile(purifier.schedule, elements) for n in {*lengths, mean}}
    noise = SeededNoise(1)

    def jobs(chosen: Sequence[Plan], first: int = 0) -> list[Job]:
        return [
            Job(plan, noise.for_image(plan, first + i, 0, None, purifier.image_shape), 2.0 * images[first + i] - 1.0)
            for i, plan in enumerate(chosen)
        ]

    def inflight() -> None:
        InFlight(stepper).run(jobs([plans[n] for n in lengths]), lambda job, x: None)

    def equal() -> None:
        InFlight(stepper).run(jobs([plans[mean]] * len(images)), lambda job, x: None)

    def padded() -> None:
        for start in range(0, len(images), stepper.capacity):
            batch = lengths[start : start + stepper.capacity]
            InFlight(stepper).run(jobs([plans[max(batch)]] * len(batch), start), lambda job, x: None)

    times = interleaved({"inflight": inflight, "padded": padded, "equal": equal}, repeats)
    rows = sum(lengths)
    # rows a second, because the mean length is rounded
    vs_equal = times.ratio("equal", "inflight") * rows / (mean * len(images))
    return {
        "inflight_vs_padded": times.ratio("padded", "inflight"),
        "inflight_vs_equal": vs_equal,
        "images": len(images),
        "slots": stepper.capacity,
        "plan_lengths": {"min": min(lengths), "mean": rows / len(lengths), "max": max(lengths)},
        "images_per_second": len(images) / times.median("inflight"),
    }
