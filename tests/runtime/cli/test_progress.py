"""The time that is left is right within a factor of two after a tenth of the work, whatever the steps cost."""

from __future__ import annotations

import random

import pytest

from edgepure.cli.progress import Estimate


@pytest.mark.parametrize("steps", [100, 1000])
def test_uneven_steps_after_a_start_that_is_paid_once(steps: int) -> None:
    """A step is foreseen by its calls, and takes up to twice or half as long; before the first the engines open."""
    for seed in range(200):
        rng = random.Random(seed)
        calls = [rng.choice((1, 3, 10)) for _ in range(steps)]
        times = [n * rng.uniform(0.5, 2.0) for n in calls]
        estimate, now, done = Estimate(), 20.0 * sum(calls) / steps, 0
        estimate.see(0.0, now)
        for number in range(steps):
            now, done = now + times[number], done + calls[number]
            estimate.see(done / sum(calls), now)
            rest = sum(times[number + 1 :])
            if 0.1 <= done / sum(calls) <= 0.9:
                left = estimate.left()
                assert left is not None and rest / 2 <= left <= 2 * rest, f"seed {seed}, step {number}"


def test_nothing_is_said_before_anything_is_known() -> None:
    estimate = Estimate()
    assert estimate.left() is None
    estimate.see(0.5, 100.0)
    assert estimate.left() is None, "half of it was done by an earlier run, in no time"
    estimate.see(0.75, 110.0)
    assert estimate.left() == 10.0
