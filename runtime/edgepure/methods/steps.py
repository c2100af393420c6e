"""Reverse steps of the samplers as row coefficients. Shared by every method.

Each function takes alpha_bar of the current and the next level (1 for the clean image) and returns keyword arguments
of `RowBuilder.call`: how x' is made of z, x0, eps and ref, and what noise the step owes.
"""

from __future__ import annotations

import math
from typing import Any, Literal

from ..rows.schedule import NoiseSchedule, posterior

Variance = Literal["fixed_small", "fixed_large", "learned"]

#: The variance of the posterior is 0 at t = 0; its logarithm is clipped to that of the step before (Ho et al. 2020).
MIN_VARIANCE = 1e-20


def predict_x0(alpha_bar: float) -> dict[str, float]:
    """Coefficients of ``x0 = (z - sigma * eps) / alpha``."""
    return {"alpha": math.sqrt(alpha_bar), "sigma": math.sqrt(1.0 - alpha_bar)}


def ddim(alpha_bar: float, alpha_bar_next: float, *, eta: float, clip: float, level: float) -> dict[str, Any]:
    """DDIM step (Song et al. 2021, equation 12). ``eta = 0`` is deterministic, ``eta = 1`` is ancestral.

    With a finite ``clip``, eps is derived again from the clipped x0, as guided-diffusion does.
    """
    std = eta * math.sqrt((1.0 - alpha_bar_next) / (1.0 - alpha_bar)) * math.sqrt(1.0 - alpha_bar / alpha_bar_next)
    direction = math.sqrt(max(1.0 - alpha_bar_next - std * std, 0.0))
    out = {"out_x0": math.sqrt(alpha_bar_next), "out_eps": direction}
    if not math.isinf(clip):
        sigma = math.sqrt(1.0 - alpha_bar)
        out = {
            "out_x0": math.sqrt(alpha_bar_next) - direction * math.sqrt(alpha_bar) / sigma,
            "out_z": direction / sigma,
        }
    return {**predict_x0(alpha_bar), **out, "clip": clip, "owes": [("step", level, std)]}


def ddpm(
    alpha_bar: float,
    alpha_bar_next: float,
    *,
    variance: Variance,
    clip: float,
    level: float,
    log_variance_floor: float | None = None,
) -> dict[str, Any]:
    """Ancestral step (Ho et al. 2020, equations 6 and 7).

    ``learned``: the network gives the variance per pixel, between the posterior's (``log_variance_floor`` where that
    is zero, at the last step) and beta. No noise is owed by the step to the clean image.
    """
    q = posterior(alpha_bar, alpha_bar_next)
    last = alpha_bar_next == 1.0
    result: dict[str, Any] = {**predict_x0(alpha_bar), "out_x0": q["c1"], "out_z": q["c2"], "clip": clip}
    if variance == "learned":
        floor = log_variance_floor if log_variance_floor is not None else math.log(MIN_VARIANCE)
        result["log_var_max"] = math.log(q["beta"])
        result["log_var_min"] = floor if last else math.log(max(q["variance"], MIN_VARIANCE))
        result["out_noise"] = 0.0 if last else 1.0
        result["out_draw_level"] = level
        return result
    chosen = q["variance"] if variance == "fixed_small" else q["beta"]
    result["owes"] = [] if last else [("step", level, math.sqrt(max(chosen, MIN_VARIANCE)))]
    return result


def first_log_variance(schedule: NoiseSchedule, grid: list[int]) -> float:
    """Clipped log posterior variance at the lowest level of a (respaced) grid: that of the second lowest."""
    if len(grid) < 2:
        return math.log(MIN_VARIANCE)
    second, lowest = grid[-2], grid[-1]
    return math.log(posterior(schedule.alpha_bar(second), schedule.alpha_bar(lowest))["variance"])


def sde_euler(s: float, h: float, schedule: NoiseSchedule) -> dict[str, Any]:
    """Euler-Maruyama step of the reverse VP-SDE from time ``s`` down by ``h`` (DiffPure, Nie et al. 2022, section 3).

    ``x + h * (beta/2 * x + beta * score) + sqrt(beta * h) * dw`` with ``score = -eps / sigma(s)``.
    """
    beta = schedule.sde.beta(s)
    sigma = schedule.sde.sigma(s)
    return {
        "alpha": math.sqrt(schedule.sde.alpha_bar(s)),
        "sigma": sigma,
        "out_z": 1.0 + 0.5 * h * beta,
        "out_eps": -h * beta / sigma,
        "owes": [("step", len(schedule) * s, math.sqrt(beta * h))],
    }
