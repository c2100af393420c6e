"""Properties that every compiled plan has, whatever its parameters."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from analytic import SHAPE, NoiseBook, execute, images, masks, network
from codes import raises_code
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from method_strategies import SCHEDULE, T, compiled, compiles, heterogeneous, methods, probes
from oracles import Oracle

from edgepure.errors import ConfigError
from edgepure.methods import GdmpSpec, GnspSpec, HeterogeneousSpec, MethodSpec, RepaintSpec, UniformSpec
from edgepure.rows import grids
from edgepure.rows.builder import RowBuilder
from edgepure.rows.execute import execute_row
from edgepure.rows.noise import SeededNoise
from edgepure.rows.plan import NO_CLIP

# ---- noise ------------------------------------------------------------------------------------------------------


@given(spec=st.one_of(methods, probes))
def test_merged_std_is_that_of_its_draws(spec: MethodSpec) -> None:
    plan = compiles(spec)
    for row in plan.rows:
        for mask, factor in ((1.0, "c_in"), (0.0, "c_out")):
            total = math.sqrt(math.fsum(getattr(draw, factor) ** 2 for draw in row.draws))
            assert row.std(mask) == pytest.approx(total, rel=1e-9, abs=1e-9)
    keys = [(d.source, d.index) for row in plan.rows for d in row.draws]
    carried = [(d.source, d.index) for d in plan.closing]
    assert len(set(keys + carried)) == len(keys + carried), "every noise enters the state once"


@given(spec=st.one_of(methods, probes))
def test_coefficients_are_finite_float32(spec: MethodSpec) -> None:
    plan = compiles(spec)
    assert plan.coeffs.shape == (len(plan.rows), len(plan.columns))
    assert plan.coeffs.dtype == np.float32
    assert np.isfinite(plan.coeffs).all()
    low, high = (plan.coeffs[:, plan.columns.index(name)] for name in ("x0_min", "x0_max"))
    assert np.isin(high, np.float32([1.0, NO_CLIP])).all()
    np.testing.assert_array_equal(low, -high)
    assert all(0.0 <= row.t <= T - 1 for row in plan.rows)


MONTE_CARLO: list[tuple[MethodSpec, Callable[[Oracle, Any, Any], Any]]] = [
    (
        UniformSpec(t_star=100, steps=4, sampler="ddim", eta=1.0, clip=False),
        lambda o, x, m: o.uniform(x, [99, 74, 49, 24], sampler="ddim", eta=1.0, clip=False),
    ),
    (
        UniformSpec(t_star=3, sampler="sde"),
        lambda o, x, m: o.vp_sde(x, 3, 1e-3, False),
    ),
    (
        HeterogeneousSpec(t_l=200, t_s=100, stage1_steps=2, stage2_steps=1, U=3, eta=1.0, clip=False),
        lambda o, x, m: o.heterogeneous(x, m, [200, 150], [100], resample="single", U=3, eta=1.0, clip=False),
    ),
    (
        HeterogeneousSpec(t_l=200, t_s=100, stage1_steps=1, stage2_steps=1, resample="multi", U=2, clip=False),
        lambda o, x, m: o.heterogeneous(x, m, [200], [100], resample="multi", U=2, eta=0.0, clip=False),
    ),
    (
        HeterogeneousSpec(t_l=200, t_s=100, variant="official", ddim_steps=20, U=3),
        lambda o, x, m: o.heterogeneous_official(x, m, [200, 150, 100, 50, 0], 100, 3),
    ),
    (
        RepaintSpec(respacing="20", t_T=4, jump_length=2, jump_n_sample=2, clip=False),
        lambda o, x, m: o.repaint(
            x, m, grids.respaced(T, "20")[::-1], [3, 2, 1, 0, 1, 2, 1, 0, -1], variance="fixed_small", clip=False
        ),
    ),
    (
        GdmpSpec(purify_steps=3, rounds=2, guide_scale=200.0, clip=False, elements=2),
        lambda o, x, m: o.gdmp(
            x,
            range(T),
            3,
            2,
            start=3,
            target="noised",
            ptb=8.0,
            guide_scale=200.0,
            elements=2,
            variance="fixed_large",
            clip=False,
        ),
    ),
    (
        GnspSpec(max_timesteps=(20, 40), num_denoising_steps=(2, 2)),
        lambda o, x, m: o.gnsp(x, [(20, 2), (40, 2)], eta=1.0, clip=False),
    ),
]


@pytest.mark.parametrize(("spec", "oracle"), MONTE_CARLO, ids=lambda value: getattr(value, "method", ""))
def test_std_against_monte_carlo(spec: MethodSpec, oracle: Callable[[Oracle, Any, Any], Any]) -> None:
    """The network's input and the result have the same mean and standard deviation, inside and outside the mask, with
    one merged noise a row as with every noise of the equations drawn on its own. The network is linear."""
    plan, samples = compiled(spec), 40_000
    rng = np.random.default_rng(3)
    ref = np.full((samples, 1, 1, 2), 0.4, np.float32)
    mask = np.tile(np.float32([1.0, 0.0]), (samples, 1, 1, 1))
    seen: dict[str, list[Any]] = {"merged": [], "separate": []}

    def linear(z: Any, t: Any, record: list[Any]) -> Any:
        record.append(z)
        return np.asarray(0.3 * z, dtype=z.dtype)

    x = ref
    for coeffs in plan.coeffs:
        noise = rng.standard_normal(ref.shape, dtype=np.float32)
        x = execute_row(lambda z, t: linear(z, t, seen["merged"]), x, ref, mask, noise, np.tile(coeffs, (samples, 1)))
    seen["merged"].append(x + plan.closing_std * rng.standard_normal(ref.shape))
    result = oracle(
        Oracle(
            SCHEDULE.betas,
            lambda z, t: linear(z, t, seen["separate"]),
            lambda source: rng.standard_normal(ref.shape),
        ),
        ref.astype(np.float64),
        mask.astype(np.float64),
    )
    seen["separate"].append(result)
    assert len(plan.rows) >= 3
    for merged, separate in zip(seen["merged"], seen["separate"], strict=True):
        for region in (0, 1):
            a, b = merged[..., region].astype(np.float64), separate[..., region]
            assert a.mean() == pytest.approx(b.mean(), abs=5 * a.std() * math.sqrt(2 / samples) + 1e-5)
            assert a.std() == pytest.approx(b.std(), rel=5 / math.sqrt(samples), abs=1e-5)


# ---- masks ------------------------------------------------------------------------------------------------------


@given(spec=heterogeneous(), seed=st.integers(0, 1000))
def test_mask_of_ones_is_uniform_noise_at_t_l(spec: HeterogeneousSpec, seed: int) -> None:
    """Without resampling: the inside of the mask is DiffPure on the union of both stages' timesteps."""
    spec = spec.model_copy(update={"resample": "none", "variant": "paper", "eta": 0.0})
    plan = compiles(spec)
    grid = tuple(int(row.t) for row in plan.rows)
    clip = True if spec.clip is None else spec.clip
    plain = compiled(UniformSpec(t_star=grid[0] + 1, timesteps=grid, sampler="ddim", eta=0.0, clip=clip))
    refs = images(seed)
    ones = np.ones((len(refs), 1, *SHAPE[1:]), np.float32)
    got = execute(plan, refs, NoiseBook(seed), ones)
    want = execute(plain, refs, NoiseBook(seed))
    np.testing.assert_allclose(got, want, atol=2e-6)


@given(spec=heterogeneous(), seed=st.integers(0, 1000))
def test_outside_of_the_mask_is_never_denoised_above_t_s(spec: HeterogeneousSpec, seed: int) -> None:
    """Paper variant: a mask of zeros is uniform noise at t_s, whatever stage 1 did."""
    spec = spec.model_copy(update={"variant": "paper", "eta": 0.0})
    plan = compiles(spec)
    below = [i for i, row in enumerate(plan.rows) if row.stage == "denoise"]
    assert int(plan.rows[below[0]].t) == spec.t_s
    for row in plan.rows[: below[0] + 1]:
        assert row.w_out == 1.0, "the outside is re-injected at every call down to t_s"
    grid = tuple(int(plan.rows[i].t) for i in below)
    clip = True if spec.clip is None else spec.clip
    plain = compiled(UniformSpec(t_star=spec.t_s + 1, timesteps=grid, sampler="ddim", eta=0.0, clip=clip))
    refs, book = images(seed), NoiseBook(seed)
    zeros = np.zeros((len(refs), 1, *SHAPE[1:]), np.float32)
    got = execute(plan, refs, book, zeros)
    last = max(index for source, index in book.by_draw if source == "known")

    class LastKnown(NoiseBook):
        def get(self, source: str, index: int) -> Any:
            return super().get("known", last)

    want = execute(plain, refs, LastKnown(seed))
    np.testing.assert_allclose(got, want, atol=2e-6)


@given(spec=heterogeneous(), seed=st.integers(0, 1000))
def test_no_resampling_is_U_zero(spec: HeterogeneousSpec, seed: int) -> None:
    plain = compiles(spec.model_copy(update={"resample": "none"}))
    assert compiled(spec.model_copy(update={"U": 0})).rows == plain.rows


def test_paper_resampling_costs_one_call_a_step_and_the_official_none() -> None:
    kwargs: dict[str, Any] = {"t_l": 200, "t_s": 100, "ddim_steps": 50, "U": 3}
    none = compiled(HeterogeneousSpec(resample="none", **kwargs)).unet_calls
    stage1 = sum(t > 100 for t in grids.strided(T, 50, 0.2))
    assert compiled(HeterogeneousSpec(resample="single", **kwargs)).unet_calls == none + stage1
    assert compiled(HeterogeneousSpec(resample="multi", **kwargs)).unet_calls == none + 3 * stage1
    official = [compiled(HeterogeneousSpec(resample=r, variant="official", **kwargs)) for r in ("none", "single")]
    assert official[0].unet_calls == official[1].unet_calls


@given(spec=heterogeneous())
def test_network_never_sees_two_noise_levels(spec: HeterogeneousSpec) -> None:
    """Inside and outside have one noise level at every call: z = alpha * image + sigma * noise for a perfect model."""
    plan = compiles(spec)
    for row in plan.rows:
        if row.w_out == 1.0:
            assert math.hypot(row.jump_a * row.known_s, row.jump_s) == pytest.approx(row.sigma, rel=1e-9)
            assert row.jump_a * row.known_a == pytest.approx(row.alpha, rel=1e-9)


def test_different_levels_before_one_call_are_refused() -> None:
    builder = RowBuilder("broken").diffuse_ref(0.9, math.sqrt(1 - 0.81), 10).inject_outside(0.8, 0.6, 20)
    with raises_code("E-plan-levels"):
        builder.call(10, alpha=0.9, sigma=0.4, out_x0=1.0)


# ---- batches ----------------------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(
    specs=st.lists(methods, min_size=2, max_size=5),
    seed=st.integers(0, 1000),
    capacity=st.integers(1, 6),
    order=st.randoms(use_true_random=False),
)
def test_an_image_does_not_depend_on_its_batch_mates(
    specs: list[MethodSpec], seed: int, capacity: int, order: Any
) -> None:
    """Seeded noise: same bits alone, in any order, in any number of slots, beside plans of any length."""
    plans = []
    for spec in specs:
        try:
            plans.append(compiled(spec))
        except ConfigError:
            assume(False)
    # every plan on a learned-variance network, so that all of them can share a batch
    learned = [plan for plan in plans if plan.learned_variance]
    epsilon = None if learned else lambda x, t: network(x, t).astype(np.float32)
    refs, mask = images(seed, len(plans)), masks(seed, len(plans))
    shuffled = list(range(len(plans)))
    order.shuffle(shuffled)
    noise = SeededNoise(seed)
    together = execute(plans, refs, noise, mask, capacity=capacity, order=shuffled, epsilon=epsilon)
    again = execute(plans, refs, noise, mask, capacity=1, epsilon=epsilon)
    assert np.array_equal(together, again)
