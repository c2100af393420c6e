"""The timesteps of the SSNI authors' code, which the goldens recorded. edgepure follows the paper instead."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from edgepure.methods.ssni import linear, sigmoid
from edgepure.methods.uniform import denoise
from edgepure.rows.builder import RowBuilder
from edgepure.rows.plan import Plan
from edgepure.rows.schedule import NoiseSchedule


def official_grid(t: int, steps: int) -> list[int]:
    """The list of the SSNI authors' code for noise level ``t``: always ``steps`` entries, repeated where t is small.

    float32 linspace from 0 to t with steps+1 points, ceil, minus 1, clamped at 0, the first entry dropped.
    """
    if steps == 1:
        return [max(t - 1, 0)]
    # The library's linspace walks up from 0 in the lower half and down from t in the upper half, all in float32.
    step = np.float32(t) / np.float32(steps)
    points = [
        np.float32(k) * step if k < (steps + 1) // 2 else np.float32(t) - np.float32(steps - k) * step
        for k in range(1, steps + 1)
    ]
    return [max(int(np.ceil(p)) - 1, 0) for p in points][::-1]


def official_noise_level(
    score_norm: float,
    *,
    reweighting: Literal["linear", "sigmoid"],
    t_star: int,
    bias: int,
    mu: float = 0.0,
    tau: float = 1.0,
    xi_min: float = 0.0,
    xi_max: float = 1.0,
) -> int:
    """The integer t of the authors' code: the paper's formulas with t* - 1 for t*, rounded half to even."""
    if reweighting == "sigmoid":
        return round(sigmoid(score_norm, mu, tau, t_star - 1, bias))
    return round(linear(score_norm, xi_min, xi_max, t_star - 1, bias))


def official_plan(
    schedule: NoiseSchedule, t: int, *, steps: int, reweighting: Literal["linear", "sigmoid"], bias: int
) -> Plan:
    """DiffPure rows for noise level ``t`` exactly as the SSNI authors' code visits them.

    The list always has ``steps`` (sigmoid: ``steps + bias``) entries; repeated entries are identity steps that still
    cost a UNet call. With linear reweighting the bias is added to every timestep, so denoising starts above the
    level that the image was noised to.
    """
    count = steps + bias if reweighting == "sigmoid" else steps
    grid = official_grid(t, count)
    if reweighting == "linear":
        grid = [g + bias for g in grid]
    noise_index = max(t - 1, 0)
    builder = RowBuilder("ssni-official")
    builder.diffuse_ref(schedule.sqrt_alpha_bar(noise_index), schedule.sigma(noise_index), noise_index)
    denoise(builder, schedule, grid, sampler="ddim", eta=1.0, clip=math.inf)
    return builder.finish(levels={"t_star": float(t)}, notes=("timestep list of the SSNI authors' code",))
