"""The authors' short cut: a purification of few UNet calls is differentiated instead of the deployed one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from edgepure import Preset
from edgepure.methods import UniformSpec
from edgepure.rows.plan import Plan

from .attack import AttackTarget
from .defence import Defence
from .expectation import Logits
from .gradient import GRADIENT_COST
from .pgd import PgdAttack
from .protocol import AttackProtocol
from .settings import AttackSettings


def surrogate(preset: Preset, plan: Plan, calls: int) -> Preset:
    """The same noise levels purified in ``calls`` UNet calls, to differentiate less.

    "Divide and Conquer" attacks its 100-call defence through 2 calls on CIFAR-10 and 4 on ImageNet. The gradient of the
    short version is not that of the deployed one, so its numbers flatter: it is here for comparison, marked as such.
    Methods of several rounds become one round from their highest timestep. ``plan``: of the preset.
    """
    short = preset.method.surrogate(calls)
    if short is None:
        level = round(max(row.t for row in plan.rows)) + 1
        short = UniformSpec(t_star=level, steps=min(calls, level), sampler="ddim", eta=1.0)
    return preset.model_copy(update={"method": short, "mask": preset.mask if short.needs_mask else None})


class SurrogateAttack(PgdAttack):
    """PGD with EOT through `surrogate`."""

    name = "surrogate"
    words = "PGD-EOT through a purification of few steps, as the methods' authors attack"
    through_defence = False
    surrogate = True

    def attacked(self, target: AttackTarget, settings: AttackSettings, seed: int) -> Logits:
        short = surrogate(target.preset, target.purifier.planner.plan(target.preset), settings.surrogate_calls)
        return Defence(target.twin, short, seed)

    def cost(self, target: AttackTarget, settings: AttackSettings) -> float:
        return GRADIENT_COST * self._looks(settings) * settings.surrogate_calls + self._selecting(target, settings)

    def protocol(self, target: AttackTarget, settings: AttackSettings, common: dict[str, Any]) -> AttackProtocol:
        return replace(
            super().protocol(target, settings, common),
            gradient=f"cross-entropy, through a purification of {settings.surrogate_calls} UNet calls instead of "
            f"{target.calls}; mask detached",
        )
