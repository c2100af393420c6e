"""Heterogeneous noise: "Divide and Conquer" (CVPR 2025, arXiv 2503.01407).

Inside the attention mask the image is noised to t_l, outside to t_s < t_l. Stage 1 (t_s < t <= t_l) is inpainting: the
outside is re-injected as the noised input ``x(t)^known``, the inside is denoised. Stage 2 (t <= t_s) denoises all.
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
from typing import Literal

from pydantic import Field, model_validator

from ..rows import grids
from ..rows.plan import Plan, RowBuilder
from ..rows.schedule import NoiseSchedule
from . import steps
from .spec import MethodSpec, PositiveInt, Timestep, Variant, clip_bound, require, scale_level, scale_steps
from .uniform import denoise


class HeterogeneousSpec(MethodSpec):
    """Noise level ``t_l`` inside the mask, ``t_s`` outside (timesteps).

    Grid: ``ddim_steps`` (the authors': fixed stride over all of T, truncated at t_l) or else ``stage1_steps`` evenly
    spaced timesteps from t_l down to t_s and ``stage2_steps`` from t_s down.
    ``resample``: none, ``single`` (one jump of U timesteps per stage-1 step) or ``multi`` (RePaint's: every stage-1
    step is undone and repeated U times).
    """

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
            raise ValueError(
                f"t_s {self.t_s} must be below t_l {self.t_l}: the outside of the mask gets the weaker noise"
            )
        if self.variant == "official" and self.resample == "multi":
            raise ValueError("the authors' code has no multi-step resampling; use variant 'paper' for resample 'multi'")
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


def compile_heterogeneous(spec: HeterogeneousSpec, schedule: NoiseSchedule) -> Plan:
    """Rows of the heterogeneous method in the reading that ``spec.variant`` names."""
    schedule.check(spec.t_l, "t_l")
    t_max = len(schedule)
    require(
        spec.t_l + spec.jump < t_max,
        f"t_l + U = {spec.t_l} + {spec.jump} is beyond the schedule (T = {t_max}); choose a smaller U or t_l",
    )
    require(
        spec.ddim_steps is None or bool(_stage1_of_stride(spec, t_max)),
        f"ddim_steps {spec.ddim_steps} makes no step between t_l {spec.t_l} and t_s {spec.t_s}; choose more steps",
    )
    clip = clip_bound(spec.clip if spec.clip is not None else spec.variant == "paper")
    levels = {"t_l": float(spec.t_l), "t_s": float(spec.t_s)}
    if spec.variant == "official":
        if spec.ddim_steps is not None:
            grid = grids.strided(t_max, spec.ddim_steps, spec.t_l / t_max)
        else:
            grid = [*_two_stage_grid(spec), 0] if spec.t_s > 0 else _two_stage_grid(spec)
            grid = sorted(set(grid), reverse=True)
        return official_rows(schedule, grid, spec.t_s, U=spec.jump, eta=spec.eta, clip=clip, levels=levels)
    if spec.ddim_steps is not None:
        stage1 = _stage1_of_stride(spec, t_max)
        strided = grids.strided(t_max, spec.ddim_steps, spec.t_l / t_max)
        stage2 = [spec.t_s, *[t for t in strided if t < spec.t_s]]
    else:
        stage1, stage2 = _stages(spec)
    return paper_rows(
        schedule, stage1, stage2, resample=spec.resample, U=spec.U, eta=spec.eta, clip=clip, levels=levels
    )


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
