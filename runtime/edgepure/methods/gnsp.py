"""GNSP: gradual noise scheduling (Lee & Kim 2023). Several uniform rounds with growing noise, one after another."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ..rows import grids
from ..rows.plan import Plan, RowBuilder
from ..rows.schedule import NoiseSchedule
from .spec import MethodSpec, PositiveInt, clip_bound, scale_level
from .uniform import denoise


class GnspSpec(MethodSpec):
    """Round r noises to timestep ``max_timesteps[r] - 1`` and visits ``num_denoising_steps[r]`` timesteps.

    The defaults are the authors' CIFAR-10 defence: 470 UNet calls.
    """

    method: Literal["gnsp"] = "gnsp"
    max_timesteps: tuple[PositiveInt, ...] = (30, 30, 30, 30, 50, 50, 125, 125)
    num_denoising_steps: tuple[PositiveInt, ...] = (30, 30, 30, 30, 50, 50, 125, 125)
    sampler: Literal["ddpm", "ddim"] = "ddpm"
    clip: bool = Field(False, description="the authors do not clip x0")

    @model_validator(mode="after")
    def _rounds(self) -> GnspSpec:
        if not self.max_timesteps or len(self.max_timesteps) != len(self.num_denoising_steps):
            raise ValueError(
                f"max_timesteps has {len(self.max_timesteps)} rounds and num_denoising_steps "
                f"{len(self.num_denoising_steps)}; they must be the same, at least 1"
            )
        return self

    @property
    def top_level(self) -> float:
        return float(max(self.max_timesteps))

    def scaled(self, factor: float, timesteps: int = 1000) -> GnspSpec | None:
        rounds = [  # the stride of each round's list stays at least what it was
            (level, max(1, level // (old // steps)))
            for old, steps in zip(self.max_timesteps, self.num_denoising_steps, strict=True)
            if (level := scale_level(old, factor, timesteps)) > 0
        ]
        if not rounds:
            return None
        return self.model_copy(
            update={
                "max_timesteps": tuple(level for level, _ in rounds),
                "num_denoising_steps": tuple(steps for _, steps in rounds),
            }
        )


def compile_gnsp(spec: GnspSpec, schedule: NoiseSchedule) -> Plan:
    """Rows of GNSP: eta = 1 for ``ddpm``, 0 for ``ddim``."""
    builder = RowBuilder("gnsp")
    eta = 1.0 if spec.sampler == "ddpm" else 0.0
    for number, (level, steps) in enumerate(zip(spec.max_timesteps, spec.num_denoising_steps, strict=True)):
        top = schedule.check(level - 1, "max_timesteps - 1 =")
        a, s = schedule.sqrt_alpha_bar(top), schedule.sigma(top)
        if number == 0:
            builder.diffuse_ref(a, s, top)
        else:
            builder.jump(a, s, top, source="initial")
        grid = grids.lee_kim(level, steps)
        denoise(
            builder,
            schedule,
            grid,
            sampler="ddim",
            eta=eta,
            clip=clip_bound(spec.clip),
            stage=f"round {number + 1}",
        )
    return builder.finish(levels={"t_star": float(max(spec.max_timesteps))})
