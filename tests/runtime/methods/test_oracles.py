"""The row executor against an independent float64 implementation of every method, for random parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from analytic import NoiseBook, execute, images, masks, network, network_learned
from hypothesis import given
from hypothesis import strategies as st
from oracles import Oracle, repaint_walk, ssni_linear, ssni_sigmoid

from edgepure.methods import (
    EpsSpec,
    GdmpSpec,
    GnspSpec,
    HeterogeneousSpec,
    MethodSpec,
    RepaintSpec,
    UniformSpec,
)
from edgepure.methods import ssni as adaptive
from edgepure.methods.heterogeneous import official_rows
from edgepure.methods.repaint import jump_times
from edgepure.methods.ssni import SsniSpec
from edgepure.rows import grids
from edgepure.rows.plan import Plan
from edgepure.rows.schedule import NoiseSchedule

SCHEDULE = NoiseSchedule.linear()
T = len(SCHEDULE)
ELEMENTS = images(0)[0].size
ATOL = 1e-5  # float32 executor against float64

seeds = st.integers(0, 2**20)


def compiled(spec: MethodSpec) -> Plan:
    return spec.compile(SCHEDULE, ELEMENTS)


def agree(plan: Plan, oracle: Callable[[Oracle, Any, Any], Any], seed: int, atol: float = ATOL) -> None:
    """Same noises, same result; and the executor asks for exactly the noises that the equations draw."""
    refs, mask, book = images(seed), masks(seed), NoiseBook(seed)
    got = execute(plan, refs, book, mask)
    net = network_learned if plan.learned_variance else network
    want = oracle(Oracle(SCHEDULE.betas, net, book.draw), refs.astype(np.float64), mask.astype(np.float64))
    assert np.abs(got - want).max() <= atol * max(1.0, float(np.abs(want).max()))
    # drawn, but multiplied by 0, at a learned-variance step to the clean image
    dropped = {("step", row.out_draw.index) for row in plan.rows if row.out_draw and row.out_noise == 0.0}
    assert book.drawn - dropped <= book.by_draw <= book.drawn


@given(
    seed=seeds,
    grid=st.sets(st.integers(0, 400), min_size=1, max_size=9),
    eta=st.sampled_from([0.0, 0.3, 1.0]),
    clip=st.booleans(),
    sampler=st.sampled_from(["ddim", "ddpm"]),
    variance=st.sampled_from(["fixed_small", "fixed_large", "learned"]),
)
def test_uniform(seed: int, grid: set[int], eta: float, clip: bool, sampler: Any, variance: Any) -> None:
    descending = sorted(grid, reverse=True)
    spec = UniformSpec(
        t_star=descending[0] + 1, timesteps=tuple(descending), sampler=sampler, eta=eta, clip=clip, variance=variance
    )
    agree(
        compiled(spec),
        lambda o, x, m: o.uniform(x, descending, sampler=sampler, eta=eta, clip=clip, variance=variance),
        seed,
    )


@given(seed=seeds, t_star=st.integers(1, 60), step=st.sampled_from([1e-3, 2.5e-3]), discrete=st.booleans())
def test_vp_sde(seed: int, t_star: int, step: float, discrete: bool) -> None:
    spec = UniformSpec(t_star=t_star, sampler="sde", sde_step=step, sde_label="discrete" if discrete else "continuous")
    agree(compiled(spec), lambda o, x, m: o.vp_sde(x, t_star, step, discrete), seed)


@st.composite
def heterogeneous(draw: st.DrawFn) -> HeterogeneousSpec:
    t_s = draw(st.integers(0, 200))
    t_l = draw(st.integers(t_s + 1, 400))
    return HeterogeneousSpec(
        t_l=t_l,
        t_s=t_s,
        stage1_steps=draw(st.integers(1, min(5, t_l - t_s))),
        stage2_steps=draw(st.integers(1, min(5, t_s + 1))),
        resample=draw(st.sampled_from(["none", "single", "multi"])),
        U=draw(st.integers(0, 4)),
        eta=draw(st.sampled_from([0.0, 0.5])),
        clip=draw(st.booleans()),
    )


@given(seed=seeds, spec=heterogeneous())
def test_heterogeneous_paper(seed: int, spec: HeterogeneousSpec) -> None:
    high, low, n1, n2 = spec.t_l, spec.t_s, spec.stage1_steps, spec.stage2_steps
    stage1 = [low + round((high - low) * (n1 - i) / n1) for i in range(n1)]
    stage2 = [round((low + 1) * (n2 - i) / n2) - 1 for i in range(n2)]
    agree(
        compiled(spec),
        lambda o, x, m: o.heterogeneous(
            x, m, stage1, stage2, resample=spec.resample, U=spec.U, eta=spec.eta, clip=bool(spec.clip)
        ),
        seed,
    )


@given(
    seed=seeds,
    ddim_steps=st.sampled_from([10, 25, 50]),
    strength_l=st.floats(0.2, 0.45),
    share=st.floats(0.1, 0.95),
    U=st.integers(0, 5),
)
def test_heterogeneous_official(seed: int, ddim_steps: int, strength_l: float, share: float, U: int) -> None:
    switch = strength_l * share * T
    every = [t for t in range(0, T - 1, T // ddim_steps)][: int(ddim_steps * strength_l) + 1]
    plan = official_rows(SCHEDULE, grids.strided(T, ddim_steps, strength_l), switch, U=U)
    agree(plan, lambda o, x, m: o.heterogeneous_official(x, m, every[::-1], switch, U), seed)


@given(
    seed=seeds,
    t_T=st.integers(1, 14),
    n_sample=st.integers(1, 2),
    length=st.integers(1, 4),
    repeats=st.integers(1, 3),
    variance=st.sampled_from(["fixed_small", "fixed_large", "learned"]),
    clip=st.booleans(),
)
def test_repaint(seed: int, t_T: int, n_sample: int, length: int, repeats: int, variance: Any, clip: bool) -> None:
    walk = repaint_walk(t_T, n_sample, length, repeats)
    assert jump_times(t_T, n_sample, length, repeats) == walk
    spec = RepaintSpec(
        respacing="50",
        t_T=t_T,
        n_sample=n_sample,
        jump_length=length,
        jump_n_sample=repeats,
        variance=variance,
        clip=clip,
    )
    kept = grids.respaced(T, "50")[::-1]
    agree(compiled(spec), lambda o, x, m: o.repaint(x, m, kept, walk, variance=variance, clip=clip), seed, atol=2e-5)


@given(
    seed=seeds,
    K=st.integers(1, 12),
    rounds=st.integers(1, 3),
    kind=st.sampled_from(["mse", "none"]),
    target=st.sampled_from(["noised", "clean"]),
    variant=st.sampled_from(["paper", "official"]),
    variance=st.sampled_from(["fixed_small", "fixed_large", "learned"]),
    clip=st.booleans(),
    respacing=st.sampled_from([None, "100", "20"]),
    scale=st.floats(0.1, 10.0),
)
def test_gdmp(
    seed: int,
    K: int,
    rounds: int,
    kind: Any,
    target: Any,
    variant: Any,
    variance: Any,
    clip: bool,
    respacing: str | None,
    scale: float,
) -> None:
    if variance == "learned" and kind == "mse":
        target = "clean"
    spec = GdmpSpec(
        purify_steps=K,
        rounds=rounds,
        guidance=kind,
        target=target,
        variant=variant,
        variance=variance,
        clip=clip,
        respacing=respacing,
        guide_scale=scale,
        ptb=8.0,
    )
    kept = grids.respaced(T, respacing)[::-1] if respacing else list(range(T))
    start = K if variant == "official" and target == "noised" else K - 1
    agree(
        compiled(spec),
        lambda o, x, m: o.gdmp(
            x,
            kept,
            K,
            rounds,
            start=start,
            target=target,
            ptb=8.0,
            guide_scale=scale,
            elements=ELEMENTS,
            variance=variance,
            clip=clip,
            guided=kind == "mse",
        ),
        seed,
    )


@given(
    seed=seeds,
    levels=st.lists(st.integers(1, 120), min_size=1, max_size=3),
    steps=st.integers(1, 7),
    sampler=st.sampled_from(["ddpm", "ddim"]),
    clip=st.booleans(),
)
def test_gnsp(seed: int, levels: list[int], steps: int, sampler: Any, clip: bool) -> None:
    rounds = [(level, min(steps, level)) for level in levels]
    spec = GnspSpec(
        max_timesteps=tuple(a for a, _ in rounds),
        num_denoising_steps=tuple(b for _, b in rounds),
        sampler=sampler,
        clip=clip,
    )
    agree(compiled(spec), lambda o, x, m: o.gnsp(x, rounds, eta=1.0 if sampler == "ddpm" else 0.0, clip=clip), seed)


@given(
    seed=seeds,
    levels=st.lists(st.floats(1.0, 100.0), min_size=1, max_size=5),
    perturb=st.booleans(),
    label=st.sampled_from(["continuous", "index"]),
)
def test_eps(seed: int, levels: list[float], perturb: bool, label: Any) -> None:
    spec = EpsSpec(levels=tuple(levels), perturb=perturb, label=label)
    agree(
        compiled(spec),
        lambda o, x, m: o.eps(x, levels, perturb=perturb, continuous_label=label == "continuous"),
        seed,
    )


def test_eps_probes_the_first_timesteps() -> None:
    agree(compiled(EpsSpec(probes=4)), lambda o, x, m: o.eps(x, [1.0, 2.0, 3.0, 4.0], perturb=True), seed=7)


@given(norm=st.floats(0, 500), t_star=st.integers(2, 500), bias=st.floats(0, 50), tau=st.floats(0.5, 100))
def test_ssni_levels(norm: float, t_star: int, bias: float, tau: float) -> None:
    sigmoid = SsniSpec(mu=160.0, tau=tau, bias=bias)
    assert sigmoid.noise_level(norm, t_star) == pytest.approx(ssni_sigmoid(norm, 160.0, tau, t_star, bias), rel=1e-9)
    linear = SsniSpec(reweighting="linear", xi_min=100.0, xi_max=200.0, bias=bias)
    assert linear.noise_level(norm, t_star) == pytest.approx(
        ssni_linear(norm, 100.0, 200.0, t_star, bias), rel=1e-9, abs=1e-9
    )


@given(seed=seeds, norm=st.floats(100, 220))
def test_ssni_on_heterogeneous_scales_both_levels(seed: int, norm: float) -> None:
    """SSNI composes: the rows are those of the method at scaled t_l and t_s."""
    method = HeterogeneousSpec(t_l=200, t_s=100, stage1_steps=4, stage2_steps=4, U=2)
    ssni = SsniSpec(mu=160.0, tau=20.0, levels=50)
    factor = round(ssni_sigmoid(norm, 160.0, 20.0, 200, 0.0) / 200 * 50) / 50
    spec = adaptive.adapted(method, ssni, norm, SCHEDULE)
    if factor == 0.0:
        assert spec is None
        return
    t_l, t_s = round(200 * factor), round(100 * factor)
    n1 = max(1, -(-4 * t_l // 200))
    assert isinstance(spec, HeterogeneousSpec)
    assert (spec.t_l, spec.t_s, spec.stage1_steps) == (t_l, t_s, min(n1, t_l - t_s))
    n1, n2 = spec.stage1_steps, spec.stage2_steps
    stage1 = [t_s + round((t_l - t_s) * (n1 - i) / n1) for i in range(n1)]
    stage2 = [round((t_s + 1) * (n2 - i) / n2) - 1 for i in range(n2)]
    agree(
        compiled(spec),
        lambda o, x, m: o.heterogeneous(x, m, stage1, stage2, resample="single", U=2, eta=0.0, clip=True),
        seed,
    )
