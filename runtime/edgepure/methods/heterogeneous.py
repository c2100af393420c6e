"""Heterogeneous noise: "Divide and Conquer" (CVPR 2025, arXiv 2503.01407).

Inside the attention mask the image is noised to t_l, outside to t_s < t_l. Stage 1 (t_s < t <= t_l) is inpainting: the
outside is re-injected as the noised input ``x(t)^known``, the inside is denoised. Stage 2 (t <= t_s) denoises all::

    x = noised(x_adv, t_l)
    for t, s in stage 1:                                     t_l down to t_s; resampling repeats a step
        x = mask * x + (1 - mask) * noised(x_adv, t)         the known region
        x = denoise(x, t, s)
    x = mask * x + (1 - mask) * noised(x_adv, t_s)
    for t, s in stage 2:                                     t_s down to the clean image
        x = denoise(x, t, s)

``variant`` says which reading: ``paper`` follows the equations, ``official`` follows the authors' code:

===================  ==========================================  ==================================================
                     paper                                       official
===================  ==========================================  ==================================================
hand-over at t_s     outside is re-injected at t_s: it was       outside was re-injected one step above t_s and
                     never denoised above t_s                    takes the last stage-1 step with the inside
single resampling    t -> t+U -> t with one extra UNet call,     t -> t+U, then DDIM straight to the next timestep:
                     then the ordinary step                      no extra UNet call
x0                   clipped to [-1, 1]                          not clipped
end                  the clean image (alpha_bar = 1)             timestep 0: a trace of noise remains
===================  ==========================================  ==================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from ..errors import ConfigError
from ..rows import grids
from ..rows.builder import RowBuilder
from ..rows.plan import Plan
from ..rows.schedule import NoiseSchedule
from . import steps
from .choices import MOST_REPEATS, Choices, Room, Suggest
from .spec import MethodSpec, PositiveInt, Timestep, Variant, clip_bound, require, scale_level, scale_steps
from .uniform import denoise


class HeterogeneousSpec(MethodSpec):
    """Noise level ``t_l`` inside the mask, ``t_s`` outside (timesteps).

    Grid: ``ddim_steps`` (the authors': fixed stride over all of T, truncated at t_l) or else ``stage1_steps`` evenly
    spaced timesteps from t_l down to t_s and ``stage2_steps`` from t_s down.
    ``resample``: none, ``single`` (one jump of U timesteps per stage-1 step) or ``multi`` (RePaint's: every stage-1
    step is undone and repeated U times).
    """

    needs_mask: ClassVar[bool] = True

    method: Literal["heterogeneous"] = "heterogeneous"
    t_l: Timestep = 200
    t_s: Timestep = 100
    variant: Variant = "paper"
    ddim_steps: PositiveInt | None = None
    stage1_steps: PositiveInt = 5
    stage2_steps: PositiveInt = 5
    resample: Literal["none", "single", "multi"] = "single"
    U: int = Field(3, ge=0, le=1000, description="timesteps of the single jump, or repetitions of the multi-step one")
    eta: float = Field(0.0, ge=0.0, le=1.0)
    clip: bool | None = Field(None, description="clip x0; None: as the variant does")

    @model_validator(mode="after")
    def _levels(self) -> HeterogeneousSpec:
        if self.t_s >= self.t_l:
            raise ConfigError(
                f"t_s {self.t_s} must be below t_l {self.t_l}: the outside of the mask gets the weaker noise",
                code="E-heterogeneous-levels",
            )
        if self.variant == "official" and self.resample == "multi":
            raise ConfigError(
                "the authors' code has no multi-step resampling; use variant 'paper' for resample 'multi'",
                code="E-heterogeneous-resample",
            )
        return self

    @property
    def top_level(self) -> float:
        return float(self.t_l)

    @property
    def jump(self) -> int:
        """How far the single-step resampling jumps above the current timestep."""
        return self.U if self.resample == "single" else 0

    def scaled(self, factor: float, timesteps: int = 1000) -> HeterogeneousSpec | None:
        maximum = timesteps - 1 - self.jump
        t_l = scale_level(self.t_l, factor, maximum)
        t_s = min(scale_level(self.t_s, factor, maximum), t_l - 1)
        if t_l <= 0 or t_s < 0:
            return None
        changes: dict[str, object] = {
            "t_l": t_l,
            "t_s": t_s,
            "stage1_steps": max(1, min(scale_steps(self.stage1_steps, self.t_l, t_l), t_l - t_s)),
            "stage2_steps": max(1, min(scale_steps(self.stage2_steps, self.t_l, t_l), t_s + 1)),
        }
        scaled = self.model_copy(update=changes)
        if self.ddim_steps is not None and not _stage1_of_stride(scaled, timesteps):
            # less noise than one stride of the fixed grid: one step a stage
            scaled = scaled.model_copy(update={"ddim_steps": None, "stage1_steps": 1, "stage2_steps": 1})
        return scaled

    def compile(self, schedule: NoiseSchedule, elements: int) -> Plan:
        """Rows of the heterogeneous method in the reading that ``self.variant`` names."""
        schedule.check(self.t_l, "t_l")
        t_max = len(schedule)
        require(
            self.t_l + self.jump < t_max,
            f"t_l + U = {self.t_l} + {self.jump} is beyond the schedule (T = {t_max}); choose a smaller U or t_l",
            code="E-heterogeneous-jump",
        )
        require(
            self.ddim_steps is None or bool(_stage1_of_stride(self, t_max)),
            f"ddim_steps {self.ddim_steps} makes no step between t_l {self.t_l} and t_s {self.t_s}; choose more steps",
            code="E-heterogeneous-steps",
        )
        clip = clip_bound(self.clip if self.clip is not None else self.variant == "paper")
        levels = {"t_l": float(self.t_l), "t_s": float(self.t_s)}
        if self.variant == "official":
            if self.ddim_steps is not None:
                grid = grids.strided(t_max, self.ddim_steps, self.t_l / t_max)
            else:
                grid = [*_two_stage_grid(self), 0] if self.t_s > 0 else _two_stage_grid(self)
                grid = sorted(set(grid), reverse=True)
            return official_rows(schedule, grid, self.t_s, U=self.jump, eta=self.eta, clip=clip, levels=levels)
        if self.ddim_steps is not None:
            stage1 = _stage1_of_stride(self, t_max)
            strided = grids.strided(t_max, self.ddim_steps, self.t_l / t_max)
            stage2 = [self.t_s, *[t for t in strided if t < self.t_s]]
        else:
            stage1, stage2 = _stages(self)
        return paper_rows(
            schedule, stage1, stage2, resample=self.resample, U=self.U, eta=self.eta, clip=clip, levels=levels
        )

    def surrogate(self, calls: int) -> HeterogeneousSpec:
        """Two plain stages of about the same length between the same levels."""
        first = max(1, calls // 2)
        changes = {
            "stage1_steps": first,
            "stage2_steps": max(1, calls - first),
            "resample": "none",
            "ddim_steps": None,
            "variant": "paper",
        }
        return HeterogeneousSpec.model_validate({**self.model_dump(), **changes})

    @classmethod
    def search_space(cls) -> Choices:
        readings = {"paper/none": 2, "paper/single": 3, "paper/multi": 3, "official/none": 2, "official/single": 2}
        also = {"heterogeneous.t_s_share": 0.5, "heterogeneous.eta": 1.0}
        return Choices(_suggest, start=("heterogeneous.t_l", 0.2), readings=readings, also=also)


def paper_rows(
    schedule: NoiseSchedule,
    stage1: Sequence[int],
    stage2: Sequence[int],
    *,
    resample: Literal["none", "single", "multi"],
    U: int,
    eta: float,
    clip: float,
    levels: dict[str, float] | None = None,
) -> Plan:
    """The paper's two stages. ``stage1``: descending timesteps above t_s; ``stage2``: descending, starts with t_s."""
    builder = RowBuilder("heterogeneous")
    alpha_bar = schedule.alpha_bar

    def inject(t: int) -> None:
        builder.inject_outside(schedule.sqrt_alpha_bar(t), schedule.sigma(t), t)

    def step(t: int, t_next: int, stage: str) -> None:
        call = steps.ddim(alpha_bar(t), alpha_bar(t_next), eta=eta, clip=clip, level=t)
        builder.call(t, stage=stage, next_level=t_next, **call)

    first = stage1[0]
    builder.diffuse_ref(schedule.sqrt_alpha_bar(first), schedule.sigma(first), first)
    for t, t_next in zip(stage1, [*stage1[1:], stage2[0]], strict=True):
        inject(t)
        if resample == "single" and U > 0:
            # x(t) -> x(t+U) -> x(t): one extra call makes the inside agree with the injected outside.
            builder.jump(*schedule.jump(t, t + U), t + U)
            step(t + U, t, "resample")
            inject(t)
        step(t, t_next, "inpaint")
        for _ in range(U if resample == "multi" else 0):
            builder.jump(*schedule.jump(t_next, t), t)
            inject(t)
            step(t, t_next, "resample")
    inject(stage2[0])
    denoise(builder, schedule, stage2, sampler="ddim", eta=eta, clip=clip)
    return builder.finish(levels=levels)


def official_rows(
    schedule: NoiseSchedule,
    grid: Sequence[int],
    switch: float,
    *,
    U: int,
    eta: float = 0.0,
    clip: float = float("inf"),
    levels: dict[str, float] | None = None,
) -> Plan:
    """The loop of the authors' code. ``grid`` descends from ~t_l to 0, ``switch`` is t_s as a real number."""
    builder = RowBuilder("heterogeneous-official")
    builder.diffuse_ref(schedule.sqrt_alpha_bar(grid[0]), schedule.sigma(grid[0]), grid[0])
    for t, t_next in pairwise(grid):
        stage = "denoise"
        if t_next >= switch:
            stage = "inpaint"
            builder.inject_outside(schedule.sqrt_alpha_bar(t), schedule.sigma(t), t)
            schedule.check(t + U, "t + U =")
            for level in range(t + 1, t + U + 1):  # U Markov steps; together they are one closed-form jump
                builder.jump(*schedule.jump(level - 1, level), level)
            t = t + U
        call = steps.ddim(schedule.alpha_bar(t), schedule.alpha_bar(t_next), eta=eta, clip=clip, level=t)
        builder.call(t, stage=stage, next_level=t_next, **call)
    notes = ("ends at timestep 0, not at the clean image: as in the authors' code",)
    return builder.finish(levels=levels, notes=notes)


def _stages(spec: HeterogeneousSpec) -> tuple[list[int], list[int]]:
    stage1 = grids.between(spec.t_l, spec.t_s, min(spec.stage1_steps, spec.t_l - spec.t_s))
    return stage1, grids.even(spec.t_s + 1, min(spec.stage2_steps, spec.t_s + 1))


def _stage1_of_stride(spec: HeterogeneousSpec, timesteps: int) -> list[int]:
    """The timesteps from which stage 1 steps down on the authors' fixed-stride grid; may be empty."""
    assert spec.ddim_steps is not None
    strided = grids.strided(timesteps, spec.ddim_steps, spec.t_l / timesteps)
    if spec.variant == "paper":
        return [t for t in strided if t > spec.t_s]
    return [t for t, t_next in pairwise(strided) if t_next >= spec.t_s]


def _two_stage_grid(spec: HeterogeneousSpec) -> list[int]:
    stage1, stage2 = _stages(spec)
    return [*stage1, *stage2]


def _suggest(trial: Suggest, room: Room, reading: str) -> dict[str, Any]:
    variant, resample = reading.split("/")
    t_l = room.level(trial, "heterogeneous.t_l", 0.04, 0.6)
    share = trial.suggest_float("heterogeneous.t_s_share", 0.1, 0.9, step=0.1)
    t_s = min(max(1, round(share * t_l)), t_l - 1)
    data: dict[str, Any] = {"method": "heterogeneous", "variant": variant, "resample": resample, "t_l": t_l, "t_s": t_s}
    per_step = 1
    if resample == "single":
        data["U"] = trial.suggest_int("heterogeneous.U", 1, max(1, round(0.03 * room.timesteps)))
        per_step = 2 if variant == "paper" else 1
    elif resample == "multi":
        data["U"] = trial.suggest_int("heterogeneous.repeats", 1, min(room.rows - 2, MOST_REPEATS))
        per_step = 1 + data["U"]
    most = min((room.rows - 1) // per_step, t_l - t_s)
    first = trial.suggest_int("heterogeneous.stage1_steps", 1, most, log=True)
    most = min(room.rows - per_step * first, t_s + 1)
    second = trial.suggest_int("heterogeneous.stage2_steps", 1, most, log=True)
    eta = trial.suggest_float("heterogeneous.eta", 0.0, 1.0, step=0.25)
    return {**data, "stage1_steps": first, "stage2_steps": second, "eta": eta}
