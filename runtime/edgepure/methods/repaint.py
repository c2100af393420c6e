"""RePaint (Lugmayr et al. 2022): inpainting with multi-step resampling, the expensive baseline.

The region outside the attention mask is RePaint's "known" region. Its jump schedule walks down, and every
``jump_length`` steps goes back up and repeats, ``jump_n_sample - 1`` times::

    for a, b in pairs of the walk:
        if b > a:  x = forward(x, a + 1)                                one noising step up
        else:      x = mask * x + (1 - mask) * noised(x_adv, a)         the known region
                   x = ddpm(x, a, a - 1)
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, ClassVar, Literal

from pydantic import Field

from ..rows import grids
from ..rows.builder import RowBuilder
from ..rows.plan import Plan, check_length
from ..rows.schedule import NoiseSchedule
from . import steps
from .choices import MOST_REPEATS, Choices, Room, Suggest
from .spec import MethodSpec, PositiveInt, clip_bound, require, scale_level


class RepaintSpec(MethodSpec):
    """``t_T`` is an index into the respaced process: the walk starts at ``t_T - 1``.

    The paper's setting is respacing "250", t_T 250, jump_length 10, jump_n_sample 10: 2410 UNet calls.
    """

    needs_mask: ClassVar[bool] = True

    method: Literal["repaint"] = "repaint"
    respacing: str = "250"
    t_T: PositiveInt = 250
    n_sample: PositiveInt = 1
    jump_length: PositiveInt = 10
    jump_n_sample: PositiveInt = 10
    start_resampling: PositiveInt | None = None
    variance: Literal["fixed_small", "fixed_large", "learned"] = "fixed_small"
    clip: bool = Field(True, description="clip the x0 estimate to [-1, 1]")

    @property
    def top_level(self) -> float:
        return float(self.t_T)

    def scaled(self, factor: float, timesteps: int = 1000) -> RepaintSpec | None:
        level = scale_level(self.t_T, factor, len(grids.respaced(timesteps, self.respacing)))
        return None if level == 0 else self.model_copy(update={"t_T": level})

    def compile(self, schedule: NoiseSchedule, elements: int) -> Plan:
        """Rows of RePaint; one row per reverse step, forward steps become jumps between rows."""
        kept = grids.respaced(len(schedule), self.respacing)[::-1]
        require(
            self.t_T <= len(kept),
            f"t_T {self.t_T} is beyond the {len(kept)} timesteps that respacing {self.respacing!r} keeps; "
            "choose a smaller t_T",
            code="E-repaint-start",
        )
        times = jump_times(self.t_T, self.n_sample, self.jump_length, self.jump_n_sample, self.start_resampling)
        clip = clip_bound(self.clip)
        builder = RowBuilder("repaint")
        learned = self.variance == "learned"
        floor = steps.first_log_variance(schedule, kept[1::-1]) if len(kept) > 1 else None

        def alpha_bar(k: int) -> float:
            return 1.0 if k < 0 else schedule.alpha_bar(kept[k])

        first = times[0]
        builder.diffuse_ref(math.sqrt(alpha_bar(first)), math.sqrt(1.0 - alpha_bar(first)), kept[first])
        started = False
        for a, b in pairwise(times):
            if b > a:
                ratio = alpha_bar(a + 1) / alpha_bar(a)
                builder.jump(math.sqrt(ratio), math.sqrt(1.0 - ratio), kept[a + 1])
                continue
            if started:
                builder.inject_outside(math.sqrt(alpha_bar(a)), math.sqrt(1.0 - alpha_bar(a)), kept[a])
            started = True
            call = steps.ddpm(
                alpha_bar(a),
                alpha_bar(a - 1),
                variance=self.variance,
                clip=clip,
                level=kept[a],
                log_variance_floor=floor,
            )
            builder.call(kept[a], stage="inpaint", next_level=kept[a - 1] if a > 0 else -1, **call)
        return builder.finish(learned_variance=learned, levels={"t_T": float(kept[self.t_T - 1] + 1)})

    @classmethod
    def search_space(cls) -> Choices:
        return Choices(_suggest, start=("repaint.level", 0.2), readings={"": 2})


def jump_times(
    t_T: int, n_sample: int, jump_length: int, jump_n_sample: int, start_resampling: int | None = None
) -> list[int]:
    """The walk of RePaint as a list of respaced indices ending in -1. Consecutive (a, b): b < a is a reverse step with
    index a; b > a is one forward step to a + 1."""
    start = start_resampling if start_resampling is not None else 100_000_000
    left = {j: jump_n_sample - 1 for j in range(0, t_T - jump_length, jump_length)}
    times: list[int] = []
    t = t_T
    while t >= 1:
        check_length((len(times) + n_sample) // 2, "repaint")  # at least every second move is a UNet call
        t -= 1
        times.append(t)
        if n_sample > 1 and t + 1 < t_T - 1 and t <= start:
            for _ in range(n_sample - 1):
                times += [t + 1, t]
        if left.get(t, 0) > 0 and t <= start - jump_length:
            left[t] -= 1
            for _ in range(jump_length):
                t += 1
                times.append(t)
    return [*times, -1]


def _suggest(trial: Suggest, room: Room, reading: str) -> dict[str, Any]:
    t = room.level(trial, "repaint.level", 0.04, 0.5)
    steps = trial.suggest_int("repaint.steps", 2, min(room.rows, t), log=True)
    jump = trial.suggest_int("repaint.jump_length", 1, min(10, steps - 1))
    fitting = [r for r in range(1, MOST_REPEATS + 1) if _reverse_steps(steps, jump, r) <= room.rows]
    return {
        "method": "repaint",
        "respacing": str(room.kept(t, steps - 1)),
        "t_T": steps,
        "jump_length": jump,
        "jump_n_sample": trial.suggest_int("repaint.jump_n_sample", 1, fitting[-1]),
        "variance": trial.suggest_categorical("repaint.variance", room.variances),
    }


def _reverse_steps(steps: int, jump_length: int, repeats: int) -> int:
    return sum(b < a for a, b in pairwise(jump_times(steps, 1, jump_length, repeats)))
