"""Purification methods: parameters (a spec) and a compiler from them to the rows of a `Plan`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ..rows.plan import Plan
from ..rows.schedule import NoiseSchedule
from .eps import EpsSpec, compile_eps
from .gdmp import GdmpSpec, compile_gdmp
from .gnsp import GnspSpec, compile_gnsp
from .heterogeneous import HeterogeneousSpec, compile_heterogeneous
from .repaint import RepaintSpec, compile_repaint
from .spec import MethodSpec
from .uniform import UniformSpec, compile_uniform

#: Any purification method, told apart by its key ``method``.
AnyMethod = Annotated[
    UniformSpec | HeterogeneousSpec | RepaintSpec | GdmpSpec | GnspSpec, Field(discriminator="method")
]

__all__ = [
    "AnyMethod", "EpsSpec", "GdmpSpec", "GnspSpec", "HeterogeneousSpec", "MethodSpec", "RepaintSpec", "UniformSpec",
    "compile_plan",
]  # fmt: skip


def compile_plan(spec: MethodSpec, schedule: NoiseSchedule, *, image_elements: int) -> Plan:
    """Compile a method's parameters to rows.

    Args:
        spec: the method and its parameters.
        schedule: the noise schedule of the diffusion model.
        image_elements: C*H*W of one image (GDMP's guidance averages over it).

    Raises:
        ConfigError: a noise level lies outside the schedule, or parameters contradict each other.
    """
    if isinstance(spec, UniformSpec):
        return compile_uniform(spec, schedule)
    if isinstance(spec, HeterogeneousSpec):
        return compile_heterogeneous(spec, schedule)
    if isinstance(spec, RepaintSpec):
        return compile_repaint(spec, schedule)
    if isinstance(spec, GdmpSpec):
        return compile_gdmp(spec, schedule, image_elements=image_elements)
    if isinstance(spec, GnspSpec):
        return compile_gnsp(spec, schedule)
    if isinstance(spec, EpsSpec):
        return compile_eps(spec, schedule)
    raise TypeError(f"not a method: {type(spec).__name__}")
