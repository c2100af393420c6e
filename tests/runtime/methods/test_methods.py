"""Plans that cannot be compiled say why, with the number that is wrong."""

from __future__ import annotations

import pytest
from codes import raises_code
from method_strategies import SCHEDULE, compiled

from edgepure.methods import EpsSpec, GdmpSpec, GnspSpec, HeterogeneousSpec, MethodSpec, RepaintSpec, UniformSpec
from edgepure.methods.heterogeneous import paper_rows
from edgepure.rows.schedule import ScheduleSpec


@pytest.mark.parametrize(
    ("spec", "code", "number"),
    [
        (UniformSpec(t_star=1001), "E-uniform-start", "1001"),
        (UniformSpec(t_star=100, timesteps=(500, 100)), "E-uniform-timestep", "500"),
        (UniformSpec(t_star=2000, timesteps=(1500,)), "E-uniform-start", "2000"),
        (UniformSpec(t_star=50, steps=60), "E-grid-steps", "60"),
        (UniformSpec(t_star=50, respacing="1001"), "E-grid-section", "1001"),
        (UniformSpec(t_star=2000, sampler="sde"), "E-uniform-start", "2000"),
        (HeterogeneousSpec(t_l=1000, t_s=10), "E-timestep", "1000"),
        (HeterogeneousSpec(t_l=998, t_s=10, U=7), "E-heterogeneous-jump", "998"),
        (HeterogeneousSpec(t_l=300, t_s=250, ddim_steps=5), "E-heterogeneous-steps", "5"),
        (HeterogeneousSpec(t_l=300, t_s=50, ddim_steps=5, variant="official"), "E-heterogeneous-steps", "5"),
        (HeterogeneousSpec(t_l=200, t_s=100, ddim_steps=2000), "E-grid-ddim-steps", "2000"),
        (RepaintSpec(respacing="50", t_T=51), "E-repaint-start", "51"),
        (GdmpSpec(purify_steps=1000), "E-gdmp-start", "1000"),
        (GdmpSpec(purify_steps=30, respacing="20"), "E-gdmp-start", "30"),
        (GdmpSpec(purify_steps=1, target="clean", respacing="1"), "E-gdmp-respacing", "'1'"),
        (GnspSpec(max_timesteps=(10, 1200), num_denoising_steps=(10, 10)), "E-timestep", "1199"),
        (GnspSpec(max_timesteps=(10,), num_denoising_steps=(11,)), "E-grid-steps", "11"),
        (EpsSpec(levels=(5.0, 1100.0)), "E-timestep", "1099"),
    ],
)
def test_plans_that_exceed_the_schedule_name_the_number(spec: MethodSpec, code: str, number: str) -> None:
    with raises_code(code) as caught:
        compiled(spec)
    assert number in str(caught.value)


def test_sde_needs_a_linear_schedule() -> None:
    cosine = ScheduleSpec(kind="cosine").build()
    with raises_code("E-schedule-sde"):
        compiled(UniformSpec(t_star=10, sampler="sde"), cosine)


def test_without_a_vp_sde_the_probe_takes_the_nearest_timestep() -> None:
    cosine = ScheduleSpec(kind="cosine").build()
    rows = compiled(EpsSpec(levels=(10.0, 20.4), label="index"), cosine).rows
    assert [row.sigma for row in rows] == [cosine.sigma(9), cosine.sigma(19)]
    assert [row.known_a for row in rows] == [cosine.sqrt_alpha_bar(9), cosine.sqrt_alpha_bar(19)]


def test_low_level_rows_check_the_schedule_too() -> None:
    with raises_code("E-timestep"):
        paper_rows(SCHEDULE, [998], [10], resample="single", U=5, eta=0.0, clip=1.0)
