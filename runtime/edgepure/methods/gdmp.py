"""GDMP (Wang et al. 2022): denoising guided towards the input, several rounds.

Every reverse step pulls x_t towards the input (noised to the same level, or clean) along the gradient of an MSE,
scaled by ``sqrt(1 - abar_t) / (m * sqrt(abar_t))``, ``m = (2 * ptb / 255) / 3 / guide_scale``. The gradient is linear
in x_t, the input and one more noise, so a guided step is still one row. SSIM guidance is not linear and is refused::

    for _ in rounds:
        x = sqrt(abar[K]) * x + sqrt(1 - abar[K]) * n
        for t in K .. 0:
            mean, var = posterior(x, x0(unet(x, t)))
            x = mean - var * scale_t * gradient of mean((x - target_t)^2) + sqrt(var) * n
"""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import Field

from ..errors import ConfigError
from ..rows import grids
from ..rows.builder import RowBuilder
from ..rows.plan import Plan
from ..rows.schedule import NoiseSchedule, posterior
from . import steps
from .choices import MOST_ROUNDS, Choices, Room, Suggest
from .spec import MethodSpec, PositiveInt, clip_bound, require, scale_level


class GdmpSpec(MethodSpec):
    """``purify_steps`` (K) reverse steps a round, ``rounds`` rounds.

    ``variant = "official"`` with ``target = "noised"`` is the authors' CIFAR-10 code: the input is noised to index K
    although the reverse process starts at K - 1; ``target = "clean"`` is their ImageNet code (learned variance, noised
    to K - 1). ``variant = "paper"`` starts both at K - 1.
    ``elements``: number of elements that the MSE averages over. The authors average over the whole batch, so their
    guidance depends on the batch size; ours counts one image: None means C*H*W of one image, given at compile time.
    """

    method: Literal["gdmp"] = "gdmp"
    purify_steps: PositiveInt = 36
    rounds: PositiveInt = 4
    variant: Literal["paper", "official"] = "official"
    guidance: Literal["mse", "none", "ssim"] = "mse"
    target: Literal["noised", "clean"] = "noised"
    guide_scale: float = Field(60_000.0, gt=0.0)
    ptb: float = Field(8.0, gt=0.0, le=255.0, description="perturbation size in 0..255 pixel units")
    elements: PositiveInt | None = None
    respacing: str | None = None
    variance: Literal["fixed_small", "fixed_large", "learned"] = "fixed_large"
    clip: bool = True

    @property
    def top_level(self) -> float:
        return float(self.purify_steps)

    @property
    def starts_above(self) -> bool:
        """The authors' CIFAR-10 code noises to index K although its first step is that of index K - 1."""
        return self.variant == "official" and self.target == "noised"

    def scaled(self, factor: float, timesteps: int = 1000) -> GdmpSpec | None:
        kept = timesteps if self.respacing is None else len(grids.respaced(timesteps, self.respacing))
        level = scale_level(self.purify_steps, factor, kept - self.starts_above)
        return None if level == 0 else self.model_copy(update={"purify_steps": level})

    def compile(self, schedule: NoiseSchedule, elements: int) -> Plan:
        """Rows of GDMP. ``elements``: C*H*W of the images that it will run on."""
        if self.guidance == "ssim":
            raise ConfigError(
                "GDMP with SSIM guidance is not offered: its gradient is not linear in x, so it does not fit a row; "
                "use guidance 'mse'",
                code="E-gdmp-ssim",
            )
        kept = list(range(len(schedule)))
        if self.respacing is not None:
            kept = grids.respaced(len(schedule), self.respacing)[::-1]
        K = self.purify_steps
        start = K if self.starts_above else K - 1
        require(
            start < len(kept),
            f"purify_steps {K} is beyond the {len(kept)} timesteps of the (respaced) process; "
            "choose a smaller number, or keep more timesteps",
            code="E-gdmp-start",
        )
        require(
            len(kept) > 1,
            f"respacing {self.respacing!r} keeps one timestep; GDMP needs at least two",
            code="E-gdmp-respacing",
        )
        elements = self.elements or elements
        learned = self.variance == "learned"

        def alpha_bar(k: int) -> float:
            return 1.0 if k < 0 else schedule.alpha_bar(kept[k])

        floor = math.log(posterior(alpha_bar(1), alpha_bar(0))["variance"])
        a, s = math.sqrt(alpha_bar(start)), math.sqrt(1.0 - alpha_bar(start))
        builder = RowBuilder("gdmp")
        for number in range(self.rounds):
            if number == 0:
                builder.diffuse_ref(a, s, kept[start])
            else:  # the next round starts from the purified x: a jump from the clean level
                builder.jump(a, s, kept[start], source="initial")
            for k in range(K - 1, -1, -1):
                here, after = alpha_bar(k), alpha_bar(k - 1)
                call = steps.ddpm(
                    here,
                    after,
                    variance=self.variance,
                    clip=clip_bound(self.clip),
                    level=kept[k],
                    log_variance_floor=floor,
                )
                if self.guidance == "mse":
                    pull = 2.0 / elements * guidance_scale(here, self.ptb, self.guide_scale)
                    noised = self.target == "noised"
                    ref_a, ref_s = (math.sqrt(here), math.sqrt(1.0 - here)) if noised else (1.0, 0.0)
                    if learned:  # the network's own per-pixel variance multiplies the gradient
                        require(
                            not noised,
                            "learned variance needs target 'clean': the pull's noise would be per pixel",
                            code="E-gdmp-variance",
                        )
                        call["var_z"], call["var_ref"] = -pull, pull * ref_a
                    else:
                        q = posterior(here, after)
                        variance = q["variance"] if self.variance == "fixed_small" else q["beta"]
                        pull *= math.exp(floor) if k == 0 else variance
                        call["out_z"] -= pull
                        call["out_ref"] = pull * ref_a
                        call["owes"] = [("target", kept[k], pull * ref_s), *call["owes"]]
                builder.call(kept[k], stage=f"round {number + 1}", next_level=kept[k - 1] if k > 0 else -1, **call)
        return builder.finish(learned_variance=learned, levels={"K": float(K)})

    @classmethod
    def search_space(cls) -> Choices:
        return Choices(_suggest, start=("gdmp.level", 0.1), readings={"": 2})


def guidance_scale(alpha_bar: float, ptb: float, guide_scale: float) -> float:
    """Scale of the guidance gradient at one level."""
    return math.sqrt(1.0 - alpha_bar) / ((2.0 * ptb / 255.0) / 3.0 / guide_scale * math.sqrt(alpha_bar))


def _suggest(trial: Suggest, room: Room, reading: str) -> dict[str, Any]:
    t = room.level(trial, "gdmp.level", 0.04, 0.5)
    variant = trial.suggest_categorical("gdmp.variant", ("paper", "official"))
    steps = trial.suggest_int("gdmp.purify_steps", 2, min(room.rows, t), log=True)
    return {
        "method": "gdmp",
        "variant": variant,
        "purify_steps": steps,
        "rounds": trial.suggest_int("gdmp.rounds", 1, min(room.rows // steps, MOST_ROUNDS)),
        "respacing": str(room.kept(t, steps if variant == "official" else steps - 1)),
        "guide_scale": float(f"{trial.suggest_float('gdmp.guide_scale', 1.0, 1e5, log=True):.2g}"),
        "variance": trial.suggest_categorical("gdmp.variance", tuple(v for v in room.variances if v != "learned")),
    }
