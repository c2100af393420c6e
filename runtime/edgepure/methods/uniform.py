"""Uniform noise: DiffPure (Nie et al. 2022). Noise the whole image to t*, then reverse it.

Algorithm, for an image ``x_adv`` in [-1, 1], with DDIM as the sampler (eta = 0)::

    x = sqrt(abar[t*]) * x_adv + sqrt(1 - abar[t*]) * n                 n ~ N(0, I)
    for t, s in grid:                                                   from t* down to the clean image, abar[-1] = 1
        eps = unet(x, t)
        x0  = clip((x - sqrt(1 - abar[t]) * eps) / sqrt(abar[t]), -1, 1)
        eps = (x - sqrt(abar[t]) * x0) / sqrt(1 - abar[t])
        x   = sqrt(abar[s]) * x0 + sqrt(1 - abar[s]) * eps

Each turn of the loop is one row. With one turn, this is denoised smoothing (Carlini et al. 2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field

from ..rows import grids
from ..rows.builder import RowBuilder
from ..rows.plan import Plan
from ..rows.schedule import NoiseSchedule
from . import steps
from .choices import Choices, Room, Suggest
from .spec import MethodSpec, PositiveInt, Timestep, clip_bound, require, scale_level, scale_steps


class UniformSpec(MethodSpec):
    """DiffPure. ``t_star`` noising steps, so the image starts at timestep ``t_star - 1``.

    Grid: ``timesteps`` (explicit, descending) or else ``respacing`` (guided-diffusion string; the kept timesteps below
    t_star are visited) or else ``steps`` evenly spaced ones (None: every timestep).
    """

    method: Literal["uniform"] = "uniform"
    t_star: PositiveInt = 100
    steps: PositiveInt | None = None
    sampler: Literal["ddpm", "ddim", "sde"] = "ddpm"
    eta: float = Field(0.0, ge=0.0, le=1.0, description="DDIM only: 0 deterministic, 1 ancestral")
    clip: bool = Field(True, description="clip the x0 estimate to [-1, 1]")
    variance: Literal["fixed_small", "fixed_large", "learned"] = "fixed_small"
    respacing: str | None = None
    timesteps: tuple[Timestep, ...] | None = None
    sde_label: Literal["continuous", "discrete"] = Field(
        "continuous",
        description="SDE only: network label 999*s (score_sde) or trunc(1000*s) (guided-diffusion)",
    )
    sde_step: float = Field(1e-3, ge=1e-5, le=1.0, description="SDE only: step of the Euler-Maruyama solver")

    @property
    def top_level(self) -> float:
        return float(self.t_star)

    def scaled(self, factor: float, timesteps: int = 1000) -> UniformSpec | None:
        level = scale_level(self.t_star, factor, timesteps)
        if level == 0:
            return None
        changes: dict[str, object] = {"t_star": level}
        if self.steps is not None:
            changes["steps"] = scale_steps(self.steps, self.t_star, level)
        if self.timesteps is not None:
            kept = tuple(t for t in self.timesteps if t < level)
            changes["timesteps"] = kept or (level - 1,)
        return self.model_copy(update=changes)

    def compile(self, schedule: NoiseSchedule, elements: int) -> Plan:
        """Rows of DiffPure."""
        require(
            self.t_star <= len(schedule),
            f"t_star {self.t_star} is beyond the schedule's T = {len(schedule)}; choose a smaller t_star",
            code="E-uniform-start",
        )
        if self.sampler == "sde":
            return _compile_sde(self, schedule)
        if self.timesteps is not None:
            grid = grids.explicit(self.timesteps, len(schedule))
            require(
                grid[0] < self.t_star,
                f"explicit timestep {grid[0]} is not below t_star {self.t_star}; t_star counts noising steps from 1; "
                "choose smaller timesteps",
                code="E-uniform-timestep",
            )
        elif self.respacing is not None:
            grid = [t for t in grids.respaced(len(schedule), self.respacing) if t < self.t_star]
            require(
                bool(grid),
                f"respacing {self.respacing!r} keeps no timestep below t_star {self.t_star}; "
                "choose a larger t_star, or keep more timesteps",
                code="E-uniform-respacing",
            )
        else:
            grid = grids.even(self.t_star, self.steps or self.t_star)
        learned = self.variance == "learned" and self.sampler == "ddpm"
        builder = RowBuilder("uniform")
        top = grid[0]
        builder.diffuse_ref(schedule.sqrt_alpha_bar(top), schedule.sigma(top), top)
        denoise(
            builder,
            schedule,
            grid,
            sampler=self.sampler,
            eta=self.eta,
            clip=clip_bound(self.clip),
            variance=self.variance,
        )
        return builder.finish(learned_variance=learned, levels={"t_star": self.t_star})

    @classmethod
    def search_space(cls) -> Choices:
        return Choices(_suggest, start=("uniform.t_star", 0.12))


def denoise(
    builder: RowBuilder,
    schedule: NoiseSchedule,
    grid: Sequence[int],
    *,
    sampler: Literal["ddpm", "ddim"],
    eta: float,
    clip: float,
    variance: steps.Variance = "fixed_small",
    end: int = -1,
    stage: str = "denoise",
) -> None:
    """Ordinary denoising along a descending grid and from its last timestep to ``end`` (-1: the clean image)."""
    floor = steps.first_log_variance(schedule, list(grid)) if variance == "learned" else None
    for t, t_next in zip(grid, [*grid[1:], end], strict=True):
        here, after = schedule.alpha_bar(t), schedule.alpha_bar(t_next)
        if sampler == "ddim":
            call = steps.ddim(here, after, eta=eta, clip=clip, level=t)
        else:
            call = steps.ddpm(here, after, variance=variance, clip=clip, level=t, log_variance_floor=floor)
        builder.call(t, stage=stage, next_level=t_next, **call)


def _compile_sde(spec: UniformSpec, schedule: NoiseSchedule) -> Plan:
    """Reverse VP-SDE by Euler-Maruyama; time u runs from 1 - t*/T up to 1 - 1e-5, s = 1 - u.

    The authors' solver adds up u in float32. After 100 steps that has moved the grid by 1e-6, enough to change the
    truncated labels of guided-diffusion networks, so the time is added up in float32 here too.
    """
    require(
        spec.timesteps is None and spec.respacing is None and spec.steps is None,
        "sampler 'sde' takes its grid from `sde_step`; leave out steps, respacing and timesteps",
        code="E-uniform-sde",
    )
    T, top = len(schedule), spec.t_star - 1
    builder = RowBuilder("uniform-sde")
    builder.diffuse_ref(schedule.sqrt_alpha_bar(top), schedule.sigma(top), top)
    u, end, step = np.float32(1.0 - spec.t_star / T), np.float32(1.0 - 1e-5), np.float32(spec.sde_step)
    while u < end:
        u_next = min(np.float32(u + step), end)
        s, h = 1.0 - float(u), float(u_next) - float(u)
        label = (T - 1) * s if spec.sde_label == "continuous" else float(int(np.float32(T) * np.float32(s)))
        builder.call(label, stage="sde", next_level=T * (1.0 - float(u_next)), **steps.sde_euler(s, h, schedule))
        u = u_next
    notes = ("the last Euler-Maruyama step adds its noise after the last UNet call (closing noise)",)
    return builder.finish(levels={"t_star": spec.t_star}, notes=notes)


def _suggest(trial: Suggest, room: Room, reading: str) -> dict[str, Any]:
    t_star = room.level(trial, "uniform.t_star", 0.02, 0.5)
    data: dict[str, Any] = {
        "method": "uniform",
        "t_star": t_star,
        "steps": trial.suggest_int("uniform.steps", 1, min(room.rows, t_star), log=True),
        "sampler": trial.suggest_categorical("uniform.sampler", ("ddpm", "ddim")),
    }
    if data["sampler"] == "ddim":
        data["eta"] = trial.suggest_float("uniform.eta", 0.0, 1.0, step=0.25)
    else:
        data["variance"] = trial.suggest_categorical("uniform.variance", room.variances)
    return data
