"""SSNI: the noise level of each image, and methods at scaled noise levels."""

from __future__ import annotations

import math
from typing import Any

from codes import raises_code
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from method_strategies import SCHEDULE, T, compiled, compiles, methods

from edgepure.errors import ConfigError
from edgepure.methods import MethodSpec
from edgepure.methods import ssni as adaptive
from edgepure.methods.ssni import SsniSpec
from edgepure.rows.schedule import NoiseSchedule

statistics = st.sampled_from(
    [
        {"reweighting": "sigmoid", "mu": 160.0, "tau": 12.0},
        {"reweighting": "linear", "xi_min": 100.0, "xi_max": 220.0},
    ]
)


@given(
    data=statistics,
    norms=st.tuples(st.floats(0, 1e6), st.floats(0, 1e6)),
    t_star=st.integers(1, 999),
    bias=st.floats(-20, 50),
    minimum=st.floats(0, 1),
    levels=st.integers(1, 1000),
)
def test_ssni_is_monotone_and_clipped(
    data: dict[str, Any], norms: tuple[float, float], t_star: int, bias: float, minimum: float, levels: int
) -> None:
    assume(data["reweighting"] == "linear" or t_star + bias >= 0)
    ssni = SsniSpec(**data, bias=bias, minimum=minimum, levels=levels)
    low, high = (ssni.factor(n, t_star, T - 1) for n in sorted(norms))
    assert low <= high
    assert low >= 0.0
    assert high * t_star <= (T - 1) * (1 + 1e-12)
    assert low >= min(minimum, (T - 1) / t_star)


@given(spec=methods, data=statistics, norm=st.floats(0, 1e5))
def test_ssni_composes_with_every_method(spec: MethodSpec, data: dict[str, Any], norm: float) -> None:
    full = compiles(spec)
    own = adaptive.adapted(spec, SsniSpec(**data), norm, SCHEDULE)
    if own is not None:
        plan = compiled(own)
        assert plan.rows
        if own.top_level <= spec.top_level:
            assert plan.unet_calls <= full.unet_calls


def test_ssni_refuses_a_norm_that_is_not_a_number() -> None:
    with raises_code("E-score-norm"):
        SsniSpec(mu=1.0, tau=1.0).factor(math.nan, 100, 999)


@settings(max_examples=300)
@given(spec=methods, factor=st.floats(0.0, 8.0))
def test_scaled_specs_compile_and_cost_no_more(spec: MethodSpec, factor: float) -> None:
    full = compiles(spec)
    scaled = spec.scaled(factor, T)
    if scaled is None:
        assert round(spec.top_level * factor) <= 1
        return
    plan = compiled(scaled)
    assert type(scaled)(**scaled.model_dump()) == scaled, "a scaled spec passes its own validation"
    assert plan.rows
    if factor <= 1.0:
        assert plan.unet_calls <= full.unet_calls
        assert scaled.top_level <= spec.top_level


@given(spec=methods, factor=st.floats(0.0, 8.0), timesteps=st.sampled_from([100, 250, 4000]))
def test_scaling_respects_the_schedule_of_the_model(spec: MethodSpec, factor: float, timesteps: int) -> None:
    schedule = NoiseSchedule.linear(timesteps)
    try:
        compiled(spec, schedule)
    except ConfigError:
        assume(False)
    scaled = spec.scaled(factor, timesteps)
    if scaled is not None:
        compiled(scaled, schedule)


@given(spec=methods)
def test_factor_one_changes_nothing(spec: MethodSpec) -> None:
    plan = compiles(spec)
    scaled = spec.scaled(1.0, T)
    assert scaled is not None
    assert compiled(scaled).unet_calls <= plan.unet_calls
    assert compiled(scaled).rows[0].t == plan.rows[0].t
