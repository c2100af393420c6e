"""Projected gradient descent (Madry et al. 2018) with expectation over transformation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

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
    ``step_size``: None means ``2.5 * eps / steps``. The last iterate is the result; nothing is selected afterwards.
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
        adversarial = ball.start(images, self.seed)
        for step in range(1, self.steps + 1):
            moved = adversarial + self.step * ball.direction(self.gradient(logits, adversarial, labels))
            adversarial = ball.project(moved, images)
            if on_step is not None:
                on_step(step)
        return adversarial

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


class PgdAttack(GradientAttack):
    """PGD with EOT through the whole defence."""

    name = "pgd"
    words = "PGD-EOT with exact gradients through every deployed step"
    through_defence = True

    def algorithms(
        self, target: AttackTarget, settings: AttackSettings, images: Tensor, seed: int
    ) -> Sequence[Algorithm]:
        return [PGD(**ball_options(settings, seed))]
