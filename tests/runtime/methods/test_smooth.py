"""Denoised smoothing: the noise is met exactly, and one call is DDIM to the clean image."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from codes import raises_code
from hypothesis import given
from hypothesis import strategies as st
from method_strategies import SCHEDULE, compiled

from edgepure.methods import SmoothSpec, UniformSpec
from edgepure.methods.smooth import timestep
from edgepure.rows.schedule import ScheduleSpec


@given(sigma=st.floats(0.02, 5.0), steps=st.integers(1, 6), kind=st.sampled_from(["linear", "cosine", "scaled_linear"]))
def test_its_certificate_is_its_sigma(sigma: float, steps: int, kind: str) -> None:
    plan = compiled(SmoothSpec(sigma=sigma, steps=steps), ScheduleSpec(kind=kind).build())
    assert plan.certified_sigma() == pytest.approx(sigma, rel=1e-6)
    assert plan.sees_input_once
    times = [row.t for row in plan.rows]
    assert len(times) == min(steps, math.floor(times[0]) + 1)
    assert all(a > b for a, b in itertools.pairwise(times))
    assert plan.rows[-1].next_level == -1.0 and plan.closing == ()


@pytest.mark.parametrize(("sigma", "t"), [(0.12, 70), (0.25, 145), (0.5, 259), (1.0, 396)])
def test_timesteps_of_the_usual_noises_on_the_linear_schedule(sigma: float, t: int) -> None:
    assert math.ceil(timestep(SCHEDULE, sigma)) == t


def test_at_a_whole_timestep_it_is_one_ddim_call() -> None:
    ours = compiled(SmoothSpec(sigma=0.5 * SCHEDULE.sigma(99) / SCHEDULE.sqrt_alpha_bar(99)))
    theirs = compiled(UniformSpec(t_star=100, steps=1, sampler="ddim"))
    np.testing.assert_allclose(ours.coeffs, theirs.coeffs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("sigma", [1e-4, 9.9])
def test_noise_that_the_schedule_does_not_have(sigma: float) -> None:
    with raises_code("E-smooth-sigma"):
        compiled(SmoothSpec(sigma=sigma), ScheduleSpec(kind="linear", timesteps=100).build())
