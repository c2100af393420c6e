"""SSNI: sample-specific noise injection (ICML 2025, arXiv 2506.06027). The score norm of an image sets its noise level.

``n`` is the Euclidean norm of the image's EPS vector (`edgepure.methods.eps`). A reweighting function turns it into
the noise level of that image:

- linear:   ``t = (n - xi_min) / (xi_max - xi_min) * t* + b``
- sigmoid:  ``t = (t* + b) / (1 + exp(-(n - mu) / tau))``

It composes with every method: all noise levels of the method are multiplied by ``t / t*`` (for the heterogeneous one,
t_l and t_s together).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from pydantic import Field, model_validator

from ..errors import ConfigError
from ..rows.schedule import NoiseSchedule
from ..validation import Entry
from .eps import EpsSpec
from .spec import MethodSpec


class SsniSpec(Entry):
    """How a score norm becomes a noise level.

    ``mu``, ``tau`` (sigmoid) and ``xi_min``, ``xi_max`` (linear) are in units of the score norm and belong to one
    diffusion model, probe and image size; calibration measures them. ``bias`` is in timesteps. ``minimum`` is the
    weakest noise level that an image may get, as a fraction of t*: 0 lets a clean-looking image pass unpurified.
    """

    reweighting: Literal["linear", "sigmoid"] = "sigmoid"
    probe: EpsSpec = EpsSpec()
    bias: float = 0.0
    mu: float | None = Field(None, ge=0.0)
    tau: float | None = Field(None, gt=0.0)
    xi_min: float | None = Field(None, ge=0.0)
    xi_max: float | None = Field(None, ge=0.0)
    minimum: float = Field(0.0, ge=0.0, le=1.0)
    levels: int = Field(64, ge=1, le=1000, description="noise levels are rounded to this many steps of t*")

    @model_validator(mode="after")
    def _statistics(self) -> SsniSpec:
        if self.reweighting == "sigmoid" and (self.mu is None or self.tau is None):
            raise ConfigError(
                "sigmoid reweighting needs mu and tau, in units of the score norm; calibration measures them",
                code="E-ssni-sigmoid",
            )
        if self.reweighting == "linear":
            if self.xi_min is None or self.xi_max is None:
                raise ConfigError(
                    "linear reweighting needs xi_min and xi_max; calibration measures them", code="E-ssni-linear"
                )
            if not self.xi_min < self.xi_max:
                raise ConfigError(f"xi_min {self.xi_min} must be below xi_max {self.xi_max}", code="E-ssni-order")
        return self

    def noise_level(self, score_norm: float, t_star: float) -> float:
        """The real-valued t of the paper's formulas, before rounding and clipping."""
        if not math.isfinite(score_norm):
            raise ConfigError(
                f"the score norm is {score_norm}; the diffusion model did not give finite values", code="E-score-norm"
            )
        if self.reweighting == "linear":
            assert self.xi_min is not None and self.xi_max is not None
            return linear(score_norm, self.xi_min, self.xi_max, t_star, self.bias)
        assert self.mu is not None and self.tau is not None
        return sigmoid(score_norm, self.mu, self.tau, t_star, self.bias)

    def factor(self, score_norm: float, t_star: float, t_max: float) -> float:
        """t / t*, rounded to `levels` steps (so that images share plans) and clipped to [minimum, t_max / t*]."""
        raw = min(max(self.noise_level(score_norm, t_star) / t_star, 0.0), t_max / t_star + 1.0)  # it may be infinite
        stepped = round(raw * self.levels) / self.levels
        return min(max(stepped, self.minimum, 0.0), t_max / t_star)


def linear(score_norm: float, xi_min: float, xi_max: float, t_star: float, bias: float) -> float:
    """SSNI-L: linear in the score norm."""
    return (score_norm - xi_min) / (xi_max - xi_min) * t_star + bias


def sigmoid(score_norm: float, mu: float, tau: float, t_star: float, bias: float) -> float:
    """SSNI-N: a sigmoid around the mean score norm of clean images."""
    z = (score_norm - mu) / tau
    # written so that exp never overflows
    weight = 1.0 / (1.0 + math.exp(-z)) if z >= 0 else math.exp(z) / (1.0 + math.exp(z))
    return (t_star + bias) * weight


def adapted(method: MethodSpec, ssni: SsniSpec, score_norm: float, schedule: NoiseSchedule) -> MethodSpec | None:
    """The method with its noise levels scaled for one image; None if the image gets no noise at all."""
    factor = ssni.factor(score_norm, method.top_level, len(schedule) - 1)
    return method.scaled(factor, len(schedule)) if factor > 0.0 else None


def reference_statistics(score_norms: Sequence[float]) -> dict[str, float]:
    """mu, xi_min and xi_max of the score norms of clean reference images (the papers use 5000 training images)."""
    if len(score_norms) < 2:
        raise ConfigError(
            f"need the score norms of at least 2 clean images, got {len(score_norms)}", code="E-norms-few"
        )
    values = [float(n) for n in score_norms]
    return {"mu": sum(values) / len(values), "xi_min": min(values), "xi_max": max(values)}
