"""Which plans have a certificate, by algebra of its own: the covariance of all that a plan sees of one pixel."""

from __future__ import annotations

import math

import numpy as np
import pytest
from codes import raises_code
from hypothesis import given
from hypothesis import strategies as st
from method_strategies import SCHEDULE, compiled, compiles, gdmp, gnsp, heterogeneous, probes, repaint, split, uniform

from edgepure.errors import ConfigError
from edgepure.methods import (
    EpsSpec,
    GdmpSpec,
    GnspSpec,
    HeterogeneousSpec,
    MethodSpec,
    Planner,
    SmoothSpec,
    UniformSpec,
)
from edgepure.methods.presets import Preset
from edgepure.rows.execute import execute_row
from edgepure.rows.plan import Plan, Row

every_method = st.one_of(uniform(), heterogeneous(), gdmp(), gnsp(), repaint, split, probes)


def seen(row: Row, held: float, mask: float) -> float:
    """How much of the input is in ``z`` beside what follows from earlier views, in the symbols of the row table."""
    w = row.w_in * mask + row.w_out * (1.0 - mask)
    return row.jump_a * ((1.0 - w) * held + w * row.known_a)


def by_covariance(plan: Plan, mask: float, rng: np.random.Generator) -> float | None:
    """1 / sigma^2 for a network that is linear, with weights of its own at each row; None: the input is seen as it is.

    Everything is then linear in the input and in independent noises: a view is ``a * ref + b . noises``, and what all
    views say of ref is ``a' (B B')^-1 a``. It may not depend on the weights.
    """
    count = len(plan.rows) + 1
    x = np.zeros(1 + count)  # coefficients of ref and of the noises
    x[0] = float(plan.start == "ref")
    views: list[np.ndarray] = []

    def look(view: np.ndarray) -> bool:
        """Take a view; False if it says something of ref without noise of its own."""
        if abs(view[1 + len(views) + skipped :]).max(initial=0.0) > 0.0:
            views.append(view)
            return True
        known = np.array(views).reshape(-1, 1 + count)
        if not len(known):
            return view[0] == 0.0
        weights, *_ = np.linalg.lstsq(known[:, 1:].T, view[1:], rcond=None)
        return bool(abs(view[0] - weights @ known[:, 0]) < 1e-9)

    skipped = 0
    for number, row in enumerate(plan.rows):
        w = row.w_in * mask + row.w_out * (1.0 - mask)
        z = row.jump_a * (1.0 - w) * x
        z[0] += row.jump_a * w * row.known_a
        z[1 + number] += row.std(mask)
        skipped = number - len(views)
        if not look(z):
            return None
        eps = rng.uniform(-0.5, 0.5) * z
        x0 = (z - row.sigma * eps) / row.alpha * rng.uniform(0.1, 0.5)
        ref = np.eye(1 + count)[0]
        x = row.out_x * x + row.out_z * z + row.out_x0 * x0 + row.out_eps * eps + row.out_ref * ref
    x[count] += plan.closing_std
    skipped = len(plan.rows) - len(views)
    if not look(x):
        return None
    table = np.array(views)
    a, b = table[:, 0], table[:, 1:]
    return float(np.sum(np.linalg.lstsq(b, a, rcond=None)[0] ** 2))


@given(spec=every_method, seed=st.integers(0, 9))
def test_sigma_is_that_of_the_covariance_of_all_views(spec: MethodSpec, seed: int) -> None:
    plan = compiles(spec)
    if len(plan.rows) > 25 or any(row.var_ref or row.out_noise for row in plan.rows):
        return
    regions = {mask: by_covariance(plan, mask, np.random.default_rng(seed)) for mask in (0.0, 1.0)}
    if None in regions.values():
        with raises_code("E-certificate-plan"):
            plan.certified_sigma()
        return
    worst = max(info for info in regions.values() if info is not None)
    assert plan.certified_sigma() == pytest.approx(0.5 / math.sqrt(worst), rel=1e-4)
    per_pixel = plan.certified_sigma(np.array([[[1.0, 0.0]]]))
    expected = [0.5 / math.sqrt(info) if info else math.inf for info in (regions[1.0], regions[0.0])]
    np.testing.assert_allclose(per_pixel.ravel(), expected, rtol=1e-4)


@given(spec=st.one_of(uniform(), heterogeneous(), gnsp(), repaint, split), seed=st.integers(0, 99))
def test_a_change_of_the_input_can_hide_in_the_noise_of_the_views(spec: MethodSpec, seed: int) -> None:
    """The result is a function of the views alone: where each noise is shifted by what the input was, it is the same.
    The shifts together have the length of the change divided by sigma: that is what the certificate bounds."""
    plan = compiles(spec)
    try:
        plan.certified_sigma()
    except ConfigError:
        return
    if len(plan.rows) > 25 or plan.learned_variance:
        return
    rng = np.random.default_rng(seed)
    mask = (rng.random((1, 1, 4, 4)) < 0.5).astype(np.float32)
    ref = rng.uniform(-0.5, 0.5, (1, 3, 4, 4))
    change = 0.01 * rng.standard_normal(ref.shape)
    x, moved = ref * (plan.start == "ref"), (ref + change) * (plan.start == "ref")
    held = {m: float(plan.start == "ref") for m in (0.0, 1.0)}
    length = 0.0
    for row, columns in zip(plan.rows, plan.coeffs, strict=True):
        noise = rng.standard_normal(ref.shape)
        shift = np.zeros_like(ref)
        for m, where in ((1.0, mask), (0.0, 1.0 - mask)):
            if row.std(m) > 0.0:
                shift += where * change * seen(row, held[m], m) / row.std(m)
            held[m] = row.out_x * held[m] + row.out_ref
        length += float((shift**2).sum())
        args = (mask, columns[None])
        x = run(x, ref, noise, *args)
        moved = run(moved, ref + change, noise - shift, *args)
    assert held == {0.0: 0.0, 1.0: 0.0}
    np.testing.assert_allclose(moved, x, atol=2e-4)
    sigma = plan.certified_sigma(mask[0])
    assert length == pytest.approx(float((change**2 / (4.0 * sigma**2)).sum()), rel=1e-4)


def run(x: np.ndarray, ref: np.ndarray, noise: np.ndarray, mask: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """A row around a network that is not linear and mixes pixels."""

    def epsilon(z: np.ndarray, t: np.ndarray) -> np.ndarray:
        return np.asarray(np.tanh(z + 0.1 * z.mean(axis=(2, 3), keepdims=True)), np.float32)

    args = [np.asarray(a, np.float32) for a in (x, ref, mask, noise)]
    return execute_row(epsilon, *args, columns)


def test_values_of_published_settings() -> None:
    assert compiled(UniformSpec(t_star=100)).certified_sigma() == pytest.approx(0.1694, abs=1e-4)
    official = compiled(HeterogeneousSpec(variant="official", t_l=200, t_s=100, ddim_steps=500))
    assert official.certified_sigma() == pytest.approx(0.0358, abs=1e-4)
    first = GnspSpec(max_timesteps=(30, 100), num_denoising_steps=(3, 10))
    only = UniformSpec(t_star=30, steps=3)
    assert compiled(first).certified_sigma() == pytest.approx(compiled(only).certified_sigma())


@pytest.mark.parametrize(
    "spec",
    [
        EpsSpec(perturb=False),
        GdmpSpec(purify_steps=4, rounds=1, target="clean", elements=48),
        GdmpSpec(purify_steps=4, rounds=2, target="clean", variance="learned", elements=48),
    ],
)
def test_what_sees_the_input_without_noise_has_none(spec: MethodSpec) -> None:
    with raises_code("E-certificate-plan"):
        compiled(spec).certified_sigma()


def test_a_mask_between_inside_and_outside_has_no_sigma() -> None:
    plan = compiled(HeterogeneousSpec(variant="official", t_l=200, t_s=100, ddim_steps=500))
    for value in (0.6, 2.0, math.nan):
        with raises_code("E-mask-values"):
            plan.certified_sigma(np.array([[[1.0, value]]]))
    assert plan.certified_sigma(np.array([[[True, False]]])).shape == (1, 1, 2)


def test_presets_that_compute_something_from_the_clean_input_have_none() -> None:
    planner = Planner(SCHEDULE, 768)
    uniform = {"method": "uniform", "t_star": 100, "steps": 5}
    ssni = {"reweighting": "linear", "xi_min": 0.0, "xi_max": 1.0, "probe": {"levels": [5.0]}}
    assert planner.certified_sigma(Preset.parse({"method": uniform, "mask": {"area": 0.5}})) > 0.16  # it goes unused
    with raises_code("E-certificate-mask"):
        planner.certified_sigma(Preset.parse({"method": {"method": "heterogeneous"}, "mask": {"area": 0.5}}))
    with raises_code("E-certificate-ssni"):
        planner.certified_sigma(Preset.parse({"method": uniform, "ssni": ssni}))


@pytest.mark.parametrize(
    ("spec", "once"),
    [
        (SmoothSpec(sigma=0.3, steps=3), True),
        (UniformSpec(t_star=50, steps=4), True),
        (GnspSpec(max_timesteps=(9, 9), num_denoising_steps=(3, 3)), True),
        (HeterogeneousSpec(t_l=40, t_s=20), False),
        (GdmpSpec(purify_steps=4, rounds=1, elements=48), False),
        (EpsSpec(probes=1), False),
    ],
)
def test_who_sees_the_input_once(spec: MethodSpec, once: bool) -> None:
    assert compiled(spec).sees_input_once is once
