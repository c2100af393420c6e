"""Projected gradient descent (Madry et al. 2018) with expectation over transformation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .attack import AttackTarget
from .balls import Ball, Norm
from .expectation import Expected, Logits, Penalty, expected
from .gradient import Algorithm, GradientAttack, ball_options
from .losses import cross_entropy
from .settings import AttackSettings


@dataclass(frozen=True)
class PGD:
    """Untargeted PGD in the ball of radius ``eps`` around images in [0, 1], from a random start in the ball.

    Every step follows the gradient of the cross-entropy (its sign, or for ``l2`` its direction), averaged over ``eot``
    copies of the image that go through the defence side by side (expectation over transformation, Athalye et al. 2018).
    ``step_size``: None means ``2.5 * eps / steps``. The last iterate is the result; nothing is selected afterwards,
    unless ``keep_best``: then it is the iterate with the smallest margin of the soft vote of the copies. That is meant
    for an attacker who knows the noise: to him the vote of the copies is the deployed decision.
    ``batch`` images are differentiated at a time, ``copies`` of their copies (None: all); both bound the memory and
    change nothing else. ``penalty`` is subtracted from the loss.
    """

    eps: float
    steps: int
    eot: int = 1
    step_size: float | None = None
    seed: int = 0
    batch: int = 64
    norm: Norm = "linf"
    copies: int | None = None
    penalty: Penalty | None = None
    keep_best: bool = False

    @property
    def step(self) -> float:
        """The step size in use."""
        return self.step_size if self.step_size is not None else 2.5 * self.eps / self.steps

    def __call__(
        self, logits: Logits, images: Tensor, labels: Tensor, on_step: Callable[[int], None] | None = None
    ) -> Tensor:
        """Attack ``logits``.

        Args:
            logits: the classifier, alone or with its defence before it.
            images: ``[B, C, H, W]`` float32 in [0, 1].
            labels: ``[B]`` int64, the true classes.
            on_step: called after each step with its number, from 1.

        Returns:
            ``[B, C, H, W]`` in [0, 1], inside the ball around ``images``.
        """
        ball = Ball(self.norm, self.eps)
        adversarial = best = ball.start(images, self.seed)
        smallest = torch.full((len(images),), torch.inf, device=images.device)
        for step in range(1, self.steps + 1):
            found = self._look(logits, adversarial, labels)
            best, smallest = _better(best, smallest, adversarial, found)
            adversarial = ball.project(adversarial + self.step * ball.direction(found.gradient), images)
            if on_step is not None:
                on_step(step)
        if not self.keep_best:
            return adversarial
        return _better(best, smallest, adversarial, self._look(logits, adversarial, labels))[0]

    def gradient(self, logits: Logits, images: Tensor, labels: Tensor) -> Tensor:
        """Gradient of the mean cross-entropy over ``eot`` copies of every image: ``[B, C, H, W]``."""
        return self._look(logits, images, labels).gradient

    def _look(self, logits: Logits, images: Tensor, labels: Tensor) -> Expected:
        return expected(
            logits,
            images,
            labels,
            cross_entropy,
            eot=self.eot,
            batch=self.batch,
            copies=self.copies,
            penalty=self.penalty,
        )


def _better(best: Tensor, smallest: Tensor, images: Tensor, found: Expected) -> tuple[Tensor, Tensor]:
    """Of each image the version with the smaller margin, and that margin."""
    better = found.margin < smallest
    return torch.where(better.reshape(-1, 1, 1, 1), images, best), torch.where(better, found.margin, smallest)


class PgdAttack(GradientAttack):
    """PGD with EOT through the whole defence."""

    name = "pgd"
    words = "PGD-EOT with exact gradients through every deployed step"
    through_defence = True

    def algorithms(
        self, target: AttackTarget, settings: AttackSettings, images: Tensor, seed: int
    ) -> Sequence[Algorithm]:
        return [PGD(**ball_options(settings, seed))]
