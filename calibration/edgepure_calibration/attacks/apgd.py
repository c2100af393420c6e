"""Auto-PGD (Croce & Hein 2020, "Reliable evaluation ...", algorithm 1), with expectation over transformation.

With ``eot`` above 1 and both losses it is what AutoAttack's version ``rand`` consists of. Written from the paper:
no maintained library offers it for randomised defences together with a selection by several evaluations
(`edgepure_calibration.attacks.selection`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from edgepure.errors import ConfigError

from .attack import AttackTarget
from .balls import Ball, Norm
from .expectation import Expected, Logits, Penalty, expected
from .gradient import GRADIENT_COST, Algorithm, GradientAttack, ball_options
from .losses import LOSSES, LossName
from .protocol import AttackProtocol
from .settings import AttackSettings

#: Weight of the new direction against the momentum; share of steps that have to increase the loss (section 3).
ALPHA, RHO = 0.75, 0.75


@dataclass(frozen=True)
class APGD:
    """Untargeted Auto-PGD: momentum, and a step size of each image that is halved where the loss stops growing.

    The loss is averaged over ``eot`` copies. The result is the iterate of which most copies were read wrong, and among
    equals that with the largest mean loss: with more than two classes the largest cross-entropy need not be a wrong
    answer. Step sizes follow the loss alone. ``batch``, ``copies``, ``penalty`` as in `PGD`.
    """

    eps: float
    steps: int
    loss: LossName = "ce"
    eot: int = 1
    seed: int = 0
    batch: int = 64
    norm: Norm = "linf"
    copies: int | None = None
    penalty: Penalty | None = None

    def __call__(
        self, logits: Logits, images: Tensor, labels: Tensor, on_step: Callable[[int], None] | None = None
    ) -> Tensor:
        """Attack ``logits``; arguments and result as of `PGD`."""
        ball = Ball(self.norm, self.eps)
        x = previous = best = ball.start(images, self.seed)
        here = self._look(logits, x, labels)
        best_loss, best_gradient = here.loss, here.gradient
        loss, gradient = here.loss, here.gradient
        result, result_wrong, result_loss = x, here.wrong, here.loss
        rule = StepRule(self.eps, self.steps, best_loss)
        for step in range(1, self.steps + 1):
            z = ball.project(x + per_image(rule.size) * ball.direction(gradient), images)
            if step > 1:
                z = ball.project(x + ALPHA * (z - x) + (1.0 - ALPHA) * (x - previous), images)
            previous, x = x, z
            found = self._look(logits, x, labels)
            increased, loss, gradient = found.loss > loss, found.loss, found.gradient
            better = loss > best_loss
            best = torch.where(per_image(better), x, best)
            best_gradient = torch.where(per_image(better), gradient, best_gradient)
            best_loss = torch.where(better, loss, best_loss)
            worse = (found.wrong > result_wrong) | ((found.wrong == result_wrong) & (loss > result_loss))
            result = torch.where(per_image(worse), x, result)
            result_wrong = torch.where(worse, found.wrong, result_wrong)
            result_loss = torch.where(worse, loss, result_loss)
            halved = rule.after(step, increased, best_loss)
            if halved is not None:  # go on from the best point
                x = torch.where(per_image(halved), best, x)
                gradient = torch.where(per_image(halved), best_gradient, gradient)
                loss = torch.where(halved, best_loss, loss)
            if on_step is not None:
                on_step(step)
        return result

    def _look(self, logits: Logits, images: Tensor, labels: Tensor) -> Expected:
        return expected(
            logits,
            images,
            labels,
            LOSSES[self.loss],
            eot=self.eot,
            batch=self.batch,
            copies=self.copies,
            penalty=self.penalty,
        )


class StepRule:
    """The step size of each image (section 3.1): it starts at 2 eps and is halved at a checkpoint if

    1. fewer than 75 % of the steps since the last checkpoint increased the loss, or
    2. the step was not halved at the last checkpoint, and the best loss has not grown since.
    """

    def __init__(self, eps: float, steps: int, best_loss: Tensor) -> None:
        self.size = torch.full_like(best_loss, 2.0 * eps)
        self._checkpoints = set(checkpoints(steps))
        self._last = 0
        self._increases = torch.zeros_like(best_loss)
        self._size_before, self._best_before = self.size, best_loss

    def after(self, step: int, increased: Tensor, best_loss: Tensor) -> Tensor | None:
        """To be called after each step, from 1: which images ``[B]`` were halved; None between checkpoints."""
        self._increases = self._increases + increased.to(self._increases)
        if step not in self._checkpoints:
            return None
        few = self._increases < RHO * (step - self._last)
        stuck = (self.size == self._size_before) & (best_loss == self._best_before)
        halved = few | stuck
        self._size_before, self._best_before, self._last = self.size, best_loss, step
        self._increases = torch.zeros_like(self._increases)
        self.size = torch.where(halved, self.size / 2.0, self.size)
        return halved


def checkpoints(steps: int) -> list[int]:
    """After which steps the rule looks: ``ceil(p_j * steps)`` with p_1 = 0.22 and
    ``p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06)``, up to ``steps``."""
    before, share = 0.0, 0.22
    found: list[int] = []
    while share <= 1.0:
        found.append(math.ceil(share * steps - 1e-9))
        before, share = share, share + max(share - before - 0.03, 0.06)
    return sorted(set(found))


def per_image(values: Tensor) -> Tensor:
    """``[B] -> [B, 1, 1, 1]``."""
    return values.reshape(-1, 1, 1, 1)


class AutoPgdAttack(GradientAttack):
    """Auto-PGD with EOT on both losses, and the worse of the two for each image: AutoAttack's version ``rand``."""

    name = "apgd"
    words = "both of these, and the worse of the two for each image: AutoAttack's version `rand`"
    through_defence = True
    includes: ClassVar[tuple[str, ...]] = ("apgd-ce", "apgd-dlr")
    losses: ClassVar[tuple[LossName, ...]] = ("ce", "dlr")

    def check(self, settings: AttackSettings, classes: int) -> None:
        super().check(settings, classes)
        if "dlr" in self.losses and classes < 3:
            raise ConfigError(
                f"the DLR loss of apgd needs at least three classes, this bundle has {classes}; ask for "
                "apgd-ce instead",
                code="E-attack-classes",
            )

    def algorithms(
        self, target: AttackTarget, settings: AttackSettings, images: Tensor, seed: int
    ) -> Sequence[Algorithm]:
        return [APGD(loss=loss, **ball_options(settings, seed)) for loss in self.losses]

    def cost(self, target: AttackTarget, settings: AttackSettings) -> float:
        runs = len(self.losses)
        if runs == 1:
            return super().cost(target, settings)
        choosing = settings.selection * settings.restarts * target.calls
        return runs * (GRADIENT_COST * self._looks(settings) * target.calls + choosing)

    def protocol(self, target: AttackTarget, settings: AttackSettings, common: dict[str, Any]) -> AttackProtocol:
        whole, within = self._whole(target, settings), _WITHIN
        if len(self.losses) > 1:
            gradient = f"{whole}; cross-entropy and DLR loss, one run each"
            selection = f"within a run the {within}; {self._several(settings)}"
        else:
            gradient = f"{whole}; {'cross-entropy' if self.losses == ('ce',) else 'DLR loss'}"
            selection = self._several(settings) if settings.restarts > 1 else within
        return replace(
            super().protocol(target, settings, common),
            gradient=gradient,
            step_size="2 eps, halved by the rule of Auto-PGD",
            selection=selection,
        )


class AutoPgdCrossEntropy(AutoPgdAttack):
    """Auto-PGD with EOT on the cross-entropy."""

    name = "apgd-ce"
    words = "Auto-PGD with EOT on the cross-entropy, exact gradients"
    includes = ()
    losses = ("ce",)


class AutoPgdDlr(AutoPgdAttack):
    """Auto-PGD with EOT on the DLR loss."""

    name = "apgd-dlr"
    words = "Auto-PGD with EOT on the DLR loss, exact gradients"
    includes = ()
    losses = ("dlr",)


_WITHIN = "iterate that most EOT copies read wrong, among equals that with the largest mean loss"
