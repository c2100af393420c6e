"""What all gradient attacks share: what is differentiated, restarts, the choice among candidates, the description."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from edgepure.types import Float32

from .attack import Attack, AttackSeeds, AttackTarget, Labels, OnShare
from .defence import MASK_GRADIENTS, Defence
from .expectation import Logits
from .protocol import AttackProtocol
from .selection import select_worst
from .settings import AttackSettings

#: A backward pass costs about two forward passes, and one more where rows are computed again.
GRADIENT_COST = 4.0


class Algorithm(Protocol):
    """What follows a gradient: `PGD`, `APGD`, `LowFrequency`, or anything that is called like them."""

    def __call__(
        self, logits: Logits, images: Tensor, labels: Tensor, on_step: Callable[[int], None] | None = None
    ) -> Tensor: ...


class GradientAttack(Attack):
    """An attack that follows a gradient: exact ones go through the twin of the whole defence."""

    @abstractmethod
    def algorithms(
        self, target: AttackTarget, settings: AttackSettings, images: Tensor, seed: int
    ) -> Sequence[Algorithm]:
        """What one restart runs, one after the other; each ends with a candidate."""

    def attacked(self, target: AttackTarget, settings: AttackSettings, seed: int) -> Logits:
        """What is differentiated; ``seed``: of the attacker's own noise."""
        return Defence(target.twin, target.preset, seed, settings.mask_gradient)

    def judged(self, target: AttackTarget, settings: AttackSettings, seed: int) -> tuple[Logits, int]:
        """What chooses among several candidates, and how often it is asked about each."""
        return Defence(target.twin, target.preset, seed), settings.selection

    def cost(self, target: AttackTarget, settings: AttackSettings) -> float:
        return GRADIENT_COST * self._looks(settings) * target.calls + self._selecting(target, settings)

    def protocol(self, target: AttackTarget, settings: AttackSettings, common: dict[str, Any]) -> AttackProtocol:
        return replace(
            super().protocol(target, settings, common),
            gradient=f"{self._whole(target, settings)}; cross-entropy",
            steps=settings.steps,
            eot=settings.eot,
            step_size=f"step 2.5 eps / steps = {2.5 * settings.eps / settings.steps:.3g}",
            restarts=settings.restarts,
            mask_gradient=None if target.preset.mask is None else settings.mask_gradient,
            selection=self._several(settings) if settings.restarts > 1 else "last iterate",
            target="the whole defence",
        )

    def run(
        self,
        target: AttackTarget,
        settings: AttackSettings,
        images: Float32,
        labels: Labels,
        seeds: AttackSeeds,
        on_share: OnShare,
    ) -> Float32:
        x, y = (torch.from_numpy(array).to(target.device) for array in (images, labels))
        logits = self.attacked(target, settings, seeds.noise)
        made = [one for start in seeds.starts for one in self.algorithms(target, settings, x, start)]
        total, done = settings.steps * len(made), 0
        results: list[Tensor] = []
        for one in made:

            def on_step(step: int, before: int = done) -> None:
                on_share((before + step) / total)

            results.append(one(logits, x, y, on_step))
            done += settings.steps
        chosen = results[0]
        if len(results) > 1:
            judge, evaluations = self.judged(target, settings, seeds.selection)
            chosen, _ = select_worst(judge, results, y, evaluations, settings.batch)
        return np.asarray(chosen.detach().cpu().numpy(), np.float32)

    def _looks(self, settings: AttackSettings) -> int:
        """Gradients of one image."""
        return settings.restarts * settings.steps * settings.eot

    def _selecting(self, target: AttackTarget, settings: AttackSettings) -> float:
        """UNet calls of the choice among the restarts."""
        return settings.selection * settings.restarts * target.calls if settings.restarts > 1 else 0.0

    def _whole(self, target: AttackTarget, settings: AttackSettings) -> str:
        """The exact gradient, in words."""
        exact = (
            "exact, through every deployed row and the classifier, noise of the forward pass reused; SSNI level "
            "detached"
        )
        return exact if target.preset.mask is None else f"{exact}; {MASK_GRADIENTS[settings.mask_gradient]}"

    def _several(self, settings: AttackSettings) -> str:
        """How several candidates become one, in words."""
        return f"worst of the candidates by {settings.selection} evaluations with fresh noise"


def ball_options(settings: AttackSettings, seed: int) -> dict[str, Any]:
    """The options that `PGD` and `APGD` share."""
    return {"eps": settings.eps, "norm": settings.norm, **common_options(settings, seed)}


def common_options(settings: AttackSettings, seed: int) -> dict[str, Any]:
    """The options that all algorithms share."""
    return {
        "steps": settings.steps,
        "eot": settings.eot,
        "seed": seed,
        "batch": settings.batch,
        "copies": settings.copies,
    }
