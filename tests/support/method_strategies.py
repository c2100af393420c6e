"""Random parameters of every method, for property tests."""

from __future__ import annotations

import math
from typing import Any

from analytic import SHAPE
from hypothesis import assume
from hypothesis import strategies as st

from edgepure.errors import ConfigError
from edgepure.methods import (
    EpsSpec,
    GdmpSpec,
    GnspSpec,
    HeterogeneousSpec,
    MethodSpec,
    RepaintSpec,
    SplitSpec,
    UniformSpec,
)
from edgepure.rows.plan import Plan
from edgepure.rows.schedule import NoiseSchedule

SCHEDULE = NoiseSchedule.linear()
T = len(SCHEDULE)

variances = st.sampled_from(["fixed_small", "fixed_large", "learned"])
clips = st.booleans()


def compiled(spec: MethodSpec, schedule: NoiseSchedule = SCHEDULE) -> Plan:
    return spec.compile(schedule, math.prod(SHAPE))


@st.composite
def uniform(draw: st.DrawFn) -> UniformSpec:
    t_star = draw(st.integers(1, 400))
    kind = draw(st.sampled_from(["every", "steps", "respacing", "timesteps", "sde"]))
    extra: dict[str, Any] = {}
    if kind == "steps":
        extra["steps"] = draw(st.integers(1, min(t_star, 12)))
    elif kind == "respacing":
        extra["respacing"] = draw(st.sampled_from(["ddim10", "25", "10,10,5"]))
    elif kind == "timesteps":
        chosen = draw(st.sets(st.integers(0, t_star - 1), min_size=1, max_size=8))
        extra["timesteps"] = tuple(sorted(chosen, reverse=True))
    elif kind == "every":
        t_star = min(t_star, 30)
    sampler = "sde" if kind == "sde" else draw(st.sampled_from(["ddpm", "ddim"]))
    return UniformSpec(
        t_star=min(t_star, 40) if sampler == "sde" else t_star,
        sampler=sampler,
        eta=draw(st.sampled_from([0.0, 0.5, 1.0])),
        clip=draw(clips),
        variance=draw(variances),
        **extra,
    )


@st.composite
def heterogeneous(draw: st.DrawFn) -> HeterogeneousSpec:
    t_s = draw(st.integers(0, 300))
    variant = draw(st.sampled_from(["paper", "official"]))
    resample = draw(st.sampled_from(["none", "single"] + (["multi"] if variant == "paper" else [])))
    return HeterogeneousSpec(
        t_l=draw(st.integers(t_s + 1, 500)),
        t_s=t_s,
        variant=variant,
        resample=resample,
        U=draw(st.integers(0, 5)),
        ddim_steps=draw(st.sampled_from([None, None, 10, 50])),
        stage1_steps=draw(st.integers(1, 6)),
        stage2_steps=draw(st.integers(1, 6)),
        eta=draw(st.sampled_from([0.0, 1.0])),
        clip=draw(st.sampled_from([None, True, False])),
    )


@st.composite
def gdmp(draw: st.DrawFn) -> GdmpSpec:
    variance = draw(variances)
    return GdmpSpec(
        purify_steps=draw(st.integers(1, 15)),
        rounds=draw(st.integers(1, 3)),
        variance=variance,
        variant=draw(st.sampled_from(["paper", "official"])),
        guidance=draw(st.sampled_from(["mse", "none"])),
        target="clean" if variance == "learned" else draw(st.sampled_from(["noised", "clean"])),
        respacing=draw(st.sampled_from([None, "20", "ddim25"])),
        clip=draw(clips),
        elements=3072,
        guide_scale=1.0,
    )


@st.composite
def gnsp(draw: st.DrawFn) -> GnspSpec:
    levels = draw(st.lists(st.integers(1, 200), min_size=1, max_size=4))
    steps = [draw(st.integers(1, min(level, 12))) for level in levels]
    return GnspSpec(
        max_timesteps=tuple(levels), num_denoising_steps=tuple(steps), sampler=draw(st.sampled_from(["ddpm", "ddim"]))
    )


repaint = st.builds(
    RepaintSpec,
    respacing=st.sampled_from(["50", "ddim20", "20"]),
    t_T=st.integers(1, 20),
    n_sample=st.integers(1, 2),
    jump_length=st.integers(1, 5),
    jump_n_sample=st.integers(1, 3),
    variance=variances,
    clip=clips,
)
split = st.builds(
    SplitSpec,
    sigma=st.floats(0.05, 1.0),
    share=st.floats(0.1, 0.9),
    strong_steps=st.integers(1, 4),
    weak_steps=st.integers(1, 4),
    eta=st.sampled_from([0.0, 1.0]),
    clip=clips,
)
methods = st.one_of(uniform(), heterogeneous(), gdmp(), gnsp(), repaint)
probes = st.builds(EpsSpec, probes=st.integers(1, 10), perturb=st.booleans())


def compiles(spec: MethodSpec) -> Plan:
    """The plan, or a rejected example: some of the drawn parameters contradict each other."""
    try:
        return compiled(spec)
    except ConfigError:
        assume(False)
        raise
