"""GNSP: gradual noise scheduling (Lee & Kim 2023). Several uniform rounds with growing noise, one after another::

x = x_adv
for t_r, steps_r in rounds:
    x = sqrt(abar[t_r]) * x + sqrt(1 - abar[t_r]) * n               only the first round sees the input
    x = denoise(x, from t_r, in steps_r steps)                      DDIM, eta = 1 (ddpm) or 0 (ddim)
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from ..errors import ConfigError
from ..rows import grids
from ..rows.builder import RowBuilder
from ..rows.plan import Plan
from ..rows.schedule import NoiseSchedule
from .choices import MOST_ROUNDS, Choices, Room, Suggest
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
            raise ConfigError(
                f"max_timesteps has {len(self.max_timesteps)} rounds and num_denoising_steps "
                f"{len(self.num_denoising_steps)}; they must be the same, at least 1",
                code="E-gnsp-rounds",
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

    def compile(self, schedule: NoiseSchedule, elements: int) -> Plan:
        """Rows of GNSP: eta = 1 for ``ddpm``, 0 for ``ddim``."""
        builder = RowBuilder("gnsp")
        eta = 1.0 if self.sampler == "ddpm" else 0.0
        for number, (level, steps) in enumerate(zip(self.max_timesteps, self.num_denoising_steps, strict=True)):
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
                clip=clip_bound(self.clip),
                stage=f"round {number + 1}",
            )
        return builder.finish(levels={"t_star": float(max(self.max_timesteps))})

    @classmethod
    def search_space(cls) -> Choices:
        return Choices(_suggest, start=("gnsp.level", 0.12), readings={"": 2})


def _suggest(trial: Suggest, room: Room, reading: str) -> dict[str, Any]:
    top = room.level(trial, "gnsp.level", 0.04, 0.5)
    rounds = trial.suggest_int("gnsp.rounds", 2, min(room.rows, MOST_ROUNDS))
    steps = trial.suggest_int("gnsp.steps", 1, min(room.rows // rounds, top), log=True)
    # a multiple of the steps: otherwise the authors' list of timesteps has more entries than steps
    levels = [steps * max(1, round(top * (r + 1) / (rounds * steps))) for r in range(rounds)]
    return {
        "method": "gnsp",
        "max_timesteps": levels,
        "num_denoising_steps": [steps] * rounds,
        "sampler": trial.suggest_categorical("gnsp.sampler", ("ddpm", "ddim")),
        "clip": True,
    }
