"""Noise schedules. Their tables are compared with recorded ones in goldens/test_g3.py."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from codes import raises_code
from hypothesis import given
from hypothesis import strategies as st

from edgepure.rows.schedule import NoiseSchedule, ScheduleSpec, posterior, schedule_from

KINDS: list[dict[str, Any]] = [
    {"kind": "linear"},
    {"kind": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    {"kind": "cosine"},
    {"kind": "vp_sde"},
    {"kind": "betas", "timesteps": 3, "betas": (0.1, 0.2, 0.3)},
    {"kind": "linear", "timesteps": 50, "beta_start": 0.002, "beta_end": 0.4},
]


@pytest.mark.parametrize("data", KINDS, ids=lambda d: f"{d['kind']}-{d.get('timesteps', 1000)}")
def test_alpha_bar_falls_from_one(data: dict[str, Any]) -> None:
    schedule = schedule_from(data)
    assert len(schedule) == schedule.spec.timesteps
    levels = [schedule.alpha_bar(t) for t in range(-1, len(schedule))]
    assert levels[0] == 1.0
    assert all(0.0 < b < a for a, b in itertools.pairwise(levels))
    for t in (0, len(schedule) - 1):
        assert schedule.sqrt_alpha_bar(t) ** 2 + schedule.sigma(t) ** 2 == pytest.approx(1.0, rel=1e-12)
    assert schedule.alphas_cumprod.dtype == np.float64
    with pytest.raises(ValueError, match="read-only"):
        schedule.betas[0] = 0.5


def test_scaled_linear_is_linear_in_the_root() -> None:
    root = np.sqrt(schedule_from(KINDS[1]).betas)
    np.testing.assert_allclose(np.diff(root), np.diff(root)[0], rtol=1e-9)
    assert root[[0, -1]] ** 2 == pytest.approx([0.00085, 0.012])


@given(levels=st.tuples(*[st.integers(-1, 999)] * 3))
def test_jumps_compose(levels: tuple[int, int, int]) -> None:
    """Two forward jumps are one, and a jump from the clean image is the marginal."""
    low, middle, high = sorted(levels)
    schedule = NoiseSchedule.linear()
    (a1, s1), (a2, s2), (a, s) = schedule.jump(low, middle), schedule.jump(middle, high), schedule.jump(low, high)
    assert a1 * a2 == pytest.approx(a, rel=1e-12)
    assert math.hypot(a2 * s1, s2) == pytest.approx(s, rel=1e-7, abs=1e-9)
    assert schedule.jump(-1, high)[1] == pytest.approx(schedule.sigma(high), abs=1e-12)


def test_jump_down_is_refused() -> None:
    with raises_code("E-timestep"):
        NoiseSchedule.linear().jump(20, 10)


@pytest.mark.parametrize("t", [-2, 1000, 5000])
def test_timestep_outside_names_the_number(t: int) -> None:
    with raises_code("E-timestep") as caught:
        NoiseSchedule.linear().alpha_bar(t)
    assert f"{t} is outside" in str(caught.value)


def test_sde_marginal_is_that_of_the_discrete_schedule() -> None:
    """alpha_bar(s) at s = (t + 1) / T agrees to first order in 1 / T."""
    for timesteps in (1000, 8000):
        schedule = NoiseSchedule.linear(timesteps, 0.1 / timesteps, 20.0 / timesteps)
        for share in (0.05, 0.2, 0.5):
            t = int(share * timesteps) - 1
            assert schedule.sde.alpha_bar(share) == pytest.approx(schedule.alpha_bar(t), rel=15.0 / timesteps)
    sde = NoiseSchedule.linear().sde
    assert sde.sigma(1e-3) ** 2 + sde.alpha_bar(1e-3) == pytest.approx(1.0, abs=1e-15)
    assert (sde.beta(0.0), sde.beta(1.0)) == pytest.approx((0.1, 20.0))


def test_last_posterior_step_has_no_variance() -> None:
    q = posterior(0.9, 1.0)
    assert (q["variance"], q["c1"], q["c2"]) == pytest.approx((0.0, 1.0, 0.0))


@pytest.mark.parametrize(
    ("data", "code"),
    [
        ({"kind": "betas"}, "E-schedule-betas"),
        ({"kind": "linear", "betas": (0.1,)}, "E-schedule-betas"),
        ({"kind": "betas", "timesteps": 3, "betas": (0.1, 0.2)}, "E-schedule-count"),
        ({"kind": "betas", "timesteps": 2, "betas": (0.1, 1.0)}, "E-schedule-range"),
        ({"beta_start": 0.03, "beta_end": 0.02}, "E-schedule-order"),
        ({"timesteps": 1}, "E-config-value"),
        ({"kind": "sigmoid"}, "E-config-value"),
        ({"steps": 10}, "E-key-unknown"),
    ],
)
def test_bad_specs(data: dict[str, Any], code: str) -> None:
    with raises_code(code):
        ScheduleSpec(**data)


def test_schedule_from_accepts_what_it_says() -> None:
    spec = ScheduleSpec(timesteps=10, beta_end=0.2)
    built = spec.build()
    assert schedule_from(built) is built
    assert schedule_from(spec).spec == spec
    assert len(schedule_from(None)) == 1000
    assert NoiseSchedule(built.betas).spec.build().alphas_cumprod == pytest.approx(built.alphas_cumprod)
