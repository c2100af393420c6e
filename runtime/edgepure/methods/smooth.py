"""Denoised smoothing (Carlini et al. 2023, arXiv 2206.10550) and its several-call form (DensePure, arXiv 2211.00322).

The input gets Gaussian noise of standard deviation ``sigma`` once, and everything after that is the denoiser's::

    x = sqrt(abar[t]) * (x_adv + 2 sigma * n)         t real, with sqrt((1 - abar[t]) / abar[t]) = 2 sigma
    for t, s in grid:                                 one call: from t straight to the clean image
        x0 = clip((x - sqrt(1 - abar[t]) * unet(x, t)) / sqrt(abar[t]), -1, 1)
        x  = ddim(x, x0, t, s)                        eta = 1 draws new noise in every step

So the answer is that of a smoothed classifier, and votes on it certify an L2 radius (docs/certificates.md). Images are
in [0, 1] for users and in [-1, 1] for the network: hence 2 sigma.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from pydantic import Field

from ..rows import grids
from ..rows.builder import RowBuilder
from ..rows.plan import Plan
from ..rows.schedule import NoiseSchedule
from . import steps
from .spec import MethodSpec, PositiveInt, clip_bound, require


class SmoothSpec(MethodSpec):
    """Noise of standard deviation ``sigma`` on images in [0, 1], met exactly: the first timestep is a real number.

    ``steps`` UNet calls. ``eta``: of the steps after the first call, 1 is ancestral, 0 deterministic.
    """

    method: Literal["smooth"] = "smooth"
    sigma: float = Field(0.25, gt=0.0, le=10.0)
    steps: PositiveInt = 1
    eta: float = Field(1.0, ge=0.0, le=1.0)
    clip: bool = Field(True, description="clip the x0 estimate to [-1, 1]")

    @property
    def top_level(self) -> float:
        return self.sigma

    def scaled(self, factor: float, timesteps: int = 1000) -> SmoothSpec | None:
        """Never above ``sigma``: that is the noise which a certificate names."""
        sigma = self.sigma * min(factor, 1.0)
        return self.model_copy(update={"sigma": sigma}) if sigma > 0.0 else None

    def compile(self, schedule: NoiseSchedule, elements: int) -> Plan:
        builder = RowBuilder("smooth").diffuse_ref(*start(schedule, self.sigma))
        denoise(builder, schedule, self.sigma, self.steps, eta=self.eta, clip=clip_bound(self.clip))
        return builder.finish(levels={"sigma": self.sigma})


def start(schedule: NoiseSchedule, sigma: float) -> tuple[float, float, float]:
    """Factor of the image, standard deviation of its noise and timestep of a state whose noise is ``sigma`` on images
    in [0, 1]. Raises as `timestep` does."""
    here = _alpha_bar(sigma)
    return math.sqrt(here), math.sqrt(1.0 - here), timestep(schedule, sigma)


def denoise(
    builder: RowBuilder,
    schedule: NoiseSchedule,
    sigma: float,
    steps_: int,
    *,
    eta: float,
    clip: float,
    stage: str = "denoise",
) -> None:
    """DDIM from noise ``sigma`` to the clean image in ``steps_`` calls."""
    t, here = timestep(schedule, sigma), _alpha_bar(sigma)
    top = math.floor(t) + 1
    below = grids.even(top, min(steps_, top))[1:]  # the first of them is the real-valued t itself
    for after in [*below, -1]:
        call = steps.ddim(here, schedule.alpha_bar(after), eta=eta, clip=clip, level=t)
        builder.call(t, stage=stage, next_level=after, **call)
        here, t = schedule.alpha_bar(after), float(after)


def timestep(schedule: NoiseSchedule, sigma: float) -> float:
    """The real-valued t whose noise is ``sigma``: between two timesteps the logarithm of the noise is linear.

    Raises:
        ConfigError: the schedule has less or more noise than that at every timestep.
    """
    levels = schedule.alphas_cumprod
    noise = 0.5 * np.sqrt((1.0 - levels) / levels)
    require(
        bool(noise[0] <= sigma <= noise[-1]),
        f"sigma {sigma:g} is outside this schedule's noise: from {noise[0]:.3g} to {noise[-1]:.3g} on images "
        "in [0, 1]; "
        "choose a sigma between them",
        code="E-smooth-sigma",
    )
    return float(np.interp(math.log(sigma), np.log(noise), np.arange(len(levels))))


def _alpha_bar(sigma: float) -> float:
    return 1.0 / (1.0 + 4.0 * sigma * sigma)
