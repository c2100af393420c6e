"""The mask of a noised copy: what is split of the certificate's budget, and that no test sees more than it allows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from statistics import NormalDist
from typing import ClassVar

import numpy as np
import pytest
from codes import raises_code
from hypothesis import given
from hypothesis import strategies as st
from method_strategies import SCHEDULE, compiled

from edgepure import Preset
from edgepure.methods import Planner, SplitSpec
from edgepure.rows.plan import Plan

NORMAL = NormalDist()
MASK = {"area": 0.5}


@given(sigma=st.floats(0.05, 1.0), share=st.floats(0.05, 0.95), strong=st.integers(1, 4), weak=st.integers(1, 4))
def test_the_budget_is_split(sigma: float, share: float, strong: int, weak: int) -> None:
    plan = compiled(SplitSpec(sigma=sigma, share=share, strong_steps=strong, weak_steps=weak))
    assert plan.certified_sigma() == pytest.approx(sigma, rel=1e-6)
    inside, outside = plan.certified_sigma(np.array([[[1.0, 0.0]]])).ravel()
    assert inside == pytest.approx(sigma / share**0.5, rel=1e-6)
    assert outside == pytest.approx(sigma, rel=1e-6)
    assert 1 / plan.levels["inside"] ** 2 + 1 / plan.levels["outside"] ** 2 == pytest.approx(1 / sigma**2)
    assert not any(row.w_in != row.w_out for row in plan.rows[: plan.mask_from])
    assert plan.needs_mask and not plan.sees_input_once and len(plan.rows) <= strong + weak


def test_the_state_under_the_mask_has_forgotten_the_input() -> None:
    """What makes it unsound is seen: a mask before the first noise, or before the copy is all that is left."""
    plan = compiled(SplitSpec(sigma=0.3))
    holding = replace(plan.rows[0], out_ref=0.1)
    for wrong in (replace(plan, rows=(holding, *plan.rows[1:])), replace(plan, mask_from=2)):
        with raises_code("E-certificate-plan"):
            wrong.certified_sigma()


def test_presets() -> None:
    planner = Planner(SCHEDULE, 768)
    split = {"method": {"method": "split", "sigma": 0.3}}
    assert planner.certified_sigma(Preset.parse({**split, "mask": MASK})) == pytest.approx(0.3, rel=1e-6)
    with raises_code("E-preset-mask"):
        Preset.parse(split)
    for source in ({"source": "caller"}, {"source": "residual", "area": 0.5}):
        with raises_code("E-preset-mask-view"):
            Preset.parse({**split, "mask": source})
    ssni = {"reweighting": "linear", "xi_min": 0.0, "xi_max": 1.0, "probe": {"levels": [5.0]}}
    with raises_code("E-certificate-ssni"):
        planner.certified_sigma(Preset.parse({**split, "mask": MASK, "ssni": ssni}))


def test_a_method_that_says_nothing_of_its_mask_is_refused() -> None:
    """Its mask would be computed from the input, and certified as that of a noised copy."""

    class Silent(SplitSpec):
        mask_of_view: ClassVar[bool] = False

    with raises_code("E-method-mask-view"):
        Planner(SCHEDULE, 768).rows(Silent())


def views(plan: Plan) -> list[tuple[float, float]]:
    """(noise of a copy, 1 if the inside sees it) in pixels, from the row symbols alone."""
    found = []
    for row in plan.rows:
        if row.w_out == 1.0:
            found.append((0.5 * row.std(0.0) / (row.jump_a * row.known_a), row.w_in))
    return found


@pytest.mark.parametrize(
    ("mask", "met"),
    [
        (lambda first: first > np.median(first, axis=1, keepdims=True), False),  # follows the copy
        (lambda first: first < 0.2, False),  # leaves the change outside where the copy shows it
        (lambda first: np.zeros(first.shape, bool), True),  # everything outside: the bound is met
    ],
)
def test_no_test_tells_the_input_from_a_changed_one_better_than_sigma_allows(
    mask: Callable[[np.ndarray], np.ndarray], met: bool
) -> None:
    """Whatever answers is at most as good as the likelihood ratio of all views, with the mask of the first one.

    Of Gaussian noise sigma the best test of level a has the power Phi(PhiInv(a) + r / sigma); here the views are
    drawn 200,000 times, and the power of the likelihood ratio is counted at many levels.
    """
    plan, rng, draws = compiled(SplitSpec(sigma=0.5, share=0.3)), np.random.default_rng(0), 200_000
    (strong, both), (weak, inside) = views(plan)
    assert (both, inside) == (1.0, 0.0)
    change = np.array([0.5, -0.2, 0.1, 0.0])
    ratios = []
    for image in (np.zeros(4), change):
        first = image + strong * rng.standard_normal((draws, 4))
        outside = ~mask(first)
        second = image + weak * rng.standard_normal((draws, 4))
        ratio = ((first - change / 2) * change).sum(1) / strong**2
        ratio += (outside * (second - change / 2) * change).sum(1) / weak**2
        ratios.append(np.sort(ratio))
    length = float(np.linalg.norm(change)) / plan.certified_sigma()
    for level in np.linspace(0.01, 0.99, 25):
        cut = ratios[0][int((1.0 - level) * draws)]
        power = 1.0 - np.searchsorted(ratios[1], cut) / draws
        allowed = NORMAL.cdf(NORMAL.inv_cdf(level) + length)
        assert power <= allowed + 4.5 * 0.5 / draws**0.5
        if met:
            assert power == pytest.approx(allowed, abs=0.006)
