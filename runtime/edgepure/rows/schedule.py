"""Noise schedules of variance-preserving (VP) diffusion.

A schedule is a table of ``alpha_bar`` in float64, indexed by the timestep ``t = 0 .. T-1``; "timestep -1" is the clean
image, ``alpha_bar = 1``. Nothing here is rounded to float32: the rows of a plan are computed in float64 and cast once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ..errors import ConfigError
from ..validation import Entry, expect

Float64 = NDArray[np.float64]

#: A schedule that leaves less of the image than this at any timestep is refused.
SMALLEST_ALPHA_BAR = 1e-30
#: Largest beta that the cosine schedule uses (Nichol & Dhariwal 2021, section 3.2).
COSINE_MAX_BETA = 0.999


class ScheduleSpec(Entry):
    """The schedule that a diffusion model was trained with, as it is stored in a bundle.

    ``linear``: beta from ``beta_start`` to ``beta_end`` in equal steps. ``scaled_linear``: the same for sqrt(beta).
    ``cosine``: Nichol & Dhariwal 2021, equation 17. ``betas``: the explicit list. ``vp_sde``: the discrete marginals
    of the VP-SDE of Song et al. 2021, whose ``beta_min = T * beta_start`` and ``beta_max = T * beta_end``.
    """

    kind: Literal["linear", "scaled_linear", "cosine", "betas", "vp_sde"] = "linear"
    timesteps: int = Field(1000, ge=2, le=100_000, description="T, the number of diffusion steps of the training")
    beta_start: float = Field(1e-4, gt=0, lt=1)
    beta_end: float = Field(0.02, gt=0, lt=1)
    betas: tuple[float, ...] | None = Field(None, description="only for kind 'betas': T values in (0, 1)")

    @model_validator(mode="after")
    def _consistent(self) -> ScheduleSpec:
        if (self.kind == "betas") != (self.betas is not None):
            raise ConfigError(
                "schedule kind 'betas' needs the list `betas`, and no other kind takes it", code="E-schedule-betas"
            )
        if self.betas is not None:
            if len(self.betas) != self.timesteps:
                raise ConfigError(
                    f"`betas` has {len(self.betas)} entries, but `timesteps` is {self.timesteps}",
                    code="E-schedule-count",
                )
            if not all(0.0 < b < 1.0 for b in self.betas):
                raise ConfigError("every entry of `betas` must lie strictly between 0 and 1", code="E-schedule-range")
        if self.beta_start > self.beta_end:
            raise ConfigError(
                f"beta_start {self.beta_start} is larger than beta_end {self.beta_end}; expected the smaller one first",
                code="E-schedule-order",
            )
        levels = self.build().alphas_cumprod
        if not (levels[0] < 1.0 and (np.diff(levels) < 0.0).all() and levels[-1] >= SMALLEST_ALPHA_BAR):
            raise ConfigError(
                f"alpha_bar goes from {levels[0]:.6g} to {levels[-1]:.6g}: it must be below 1, fall with every "
                f"timestep and stay at {SMALLEST_ALPHA_BAR:g} or above, or a step divides by zero",
                code="E-schedule-alpha-bar",
            )
        return self

    def build(self) -> NoiseSchedule:
        """Compute the float64 tables."""
        n = self.timesteps
        if self.kind in ("linear", "vp_sde"):
            betas: Float64 = np.linspace(self.beta_start, self.beta_end, n, dtype=np.float64)
        elif self.kind == "scaled_linear":
            betas = np.linspace(math.sqrt(self.beta_start), math.sqrt(self.beta_end), n, dtype=np.float64) ** 2
        elif self.kind == "cosine":
            f = [math.cos((i / n + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(n + 1)]
            betas = np.array([min(1.0 - f[i + 1] / f[i], COSINE_MAX_BETA) for i in range(n)])
        else:
            betas = np.array(self.betas, dtype=np.float64)
        return NoiseSchedule(betas, self)


class NoiseSchedule:
    """float64 tables of a VP diffusion process.

    Attributes:
        betas: ``[T]`` float64, beta_t.
        alphas_cumprod: ``[T]`` float64, alpha_bar_t.
        spec: what it was built from.
    """

    def __init__(self, betas: Float64, spec: ScheduleSpec | None = None) -> None:
        expect(spec=(spec, ScheduleSpec, None))
        try:
            self.betas = np.ascontiguousarray(betas, dtype=np.float64)
        except (TypeError, ValueError):
            raise ConfigError(f"betas is {betas!r:.80}, expected numbers", code="E-config-type") from None
        self.alphas_cumprod: Float64 = np.cumprod(1.0 - self.betas, dtype=np.float64)
        for table in (self.betas, self.alphas_cumprod):
            table.setflags(write=False)
        self.spec = spec or ScheduleSpec(
            kind="betas", timesteps=len(self.betas), betas=tuple(float(b) for b in self.betas)
        )

    @classmethod
    def linear(cls, timesteps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> NoiseSchedule:
        """The linear VP schedule of Ho et al. 2020, the one of the published CIFAR-10 and ImageNet models."""
        return ScheduleSpec(kind="linear", timesteps=timesteps, beta_start=beta_start, beta_end=beta_end).build()

    def __len__(self) -> int:
        return len(self.betas)

    def __repr__(self) -> str:
        return f"NoiseSchedule(kind={self.spec.kind!r}, timesteps={len(self)})"

    def check(self, t: int, what: str = "timestep") -> int:
        """Return ``t`` if it is a timestep of this schedule (-1 is the clean image), or raise ConfigError."""
        expect(**{what: (t, Integral)})
        if not -1 <= t < len(self):
            raise ConfigError(
                f"{what} {t} is outside the noise schedule: expected 0 to {len(self) - 1} "
                f"(T = {len(self)}); choose a smaller noise level or U",
                code="E-timestep",
            )
        return t

    def alpha_bar(self, t: int) -> float:
        """alpha_bar at timestep ``t``; 1 for ``t = -1``."""
        self.check(t)
        return 1.0 if t < 0 else float(self.alphas_cumprod[t])

    def sqrt_alpha_bar(self, t: int) -> float:
        """sqrt(alpha_bar_t), the factor of the image at level ``t``."""
        return math.sqrt(self.alpha_bar(t))

    def sigma(self, t: int) -> float:
        """sqrt(1 - alpha_bar_t), the standard deviation of the noise at level ``t``."""
        return math.sqrt(1.0 - self.alpha_bar(t))

    def jump(self, start: int, end: int) -> tuple[float, float]:
        """Scale and noise of the forward process from level ``start`` up to ``end`` in one closed-form step."""
        expect(start=(start, Integral), end=(end, Integral))
        if end < start:
            raise ConfigError(f"a forward jump must go up in noise, got {start} -> {end}", code="E-timestep")
        ratio = self.alpha_bar(end) / self.alpha_bar(start)
        return math.sqrt(ratio), math.sqrt(max(1.0 - ratio, 0.0))

    @property
    def has_sde(self) -> bool:
        """True if the schedule is the discretisation of a VP-SDE with linear beta(s)."""
        return self.spec.kind in ("linear", "vp_sde")

    @cached_property
    def sde(self) -> VPSDE:
        """The continuous VP-SDE whose discretisation this schedule is (linear and vp_sde kinds only)."""
        if not self.has_sde:
            raise ConfigError(
                f"a {self.spec.kind!r} schedule has no VP-SDE with linear beta(s); use the sampler 'ddpm' or 'ddim'",
                code="E-schedule-sde",
            )
        n = self.spec.timesteps
        return VPSDE(self.spec.beta_start * n, self.spec.beta_end * n)


@dataclass(frozen=True)
class VPSDE:
    """The VP-SDE of Song et al. 2021 (appendix C): time ``s`` runs from 0 (image) to 1 (noise)."""

    beta_min: float = 0.1
    beta_max: float = 20.0

    def beta(self, s: float) -> float:
        """beta(s), linear in s."""
        return self.beta_min + s * (self.beta_max - self.beta_min)

    def alpha_bar(self, s: float) -> float:
        """Squared scale of the image in the marginal at time ``s``."""
        return math.exp(-0.5 * s * s * (self.beta_max - self.beta_min) - s * self.beta_min)

    def sigma(self, s: float) -> float:
        """Standard deviation of the noise in the marginal at time ``s``; expm1 keeps small ``s`` exact."""
        return math.sqrt(-math.expm1(-0.5 * s * s * (self.beta_max - self.beta_min) - s * self.beta_min))


def posterior(alpha_bar: float, alpha_bar_prev: float) -> dict[str, float]:
    """Posterior q(x_prev | x_t, x0) of one reverse step between two levels (Ho et al. 2020, equations 6 and 7).

    Returns ``beta`` (of the possibly respaced step), ``c1`` (factor of x0), ``c2`` (factor of x_t), ``variance``.
    """
    beta = 1.0 - alpha_bar / alpha_bar_prev
    return {
        "beta": beta,
        "c1": beta * math.sqrt(alpha_bar_prev) / (1.0 - alpha_bar),
        "c2": (1.0 - alpha_bar_prev) * math.sqrt(1.0 - beta) / (1.0 - alpha_bar),
        "variance": beta * (1.0 - alpha_bar_prev) / (1.0 - alpha_bar),
    }


def schedule_from(value: NoiseSchedule | ScheduleSpec | dict[str, Any] | None) -> NoiseSchedule:
    """Accept a schedule, its spec, a plain dict of the spec, or None for the linear VP schedule."""
    if value is None:
        return NoiseSchedule.linear()
    if isinstance(value, NoiseSchedule):
        return value
    spec = value if isinstance(value, ScheduleSpec) else ScheduleSpec.model_validate(value)
    return spec.build()
