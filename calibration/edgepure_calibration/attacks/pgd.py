"""Projected gradient descent (Madry et al. 2018) with expectation over transformation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

#: Images [B, C, H, W] in [0, 1] -> logits [B, N], differentiable. A randomised defence draws new noise for every
#: image of every call.
Logits = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class PGD:
    """Untargeted PGD in the Linf ball of radius ``eps`` around images in [0, 1], from a random start in the ball.

    Every step follows the sign of the gradient of the cross-entropy, averaged over ``eot`` copies of the image that go
    through the defence side by side (expectation over transformation, Athalye et al. 2018). ``step_size``: None means
    ``2.5 * eps / steps``. The last iterate is the result; nothing is selected afterwards. ``batch`` images are
    differentiated at a time; it bounds the memory and changes nothing else.
    """

    eps: float
    steps: int
    eot: int = 1
    step_size: float | None = None
    seed: int = 0
    batch: int = 64

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
            ``[B, C, H, W]`` in [0, 1], at most ``eps`` away from ``images`` in every pixel.
        """
        generator = torch.Generator().manual_seed(self.seed)
        start = 2.0 * torch.rand(images.shape, generator=generator) - 1.0
        adversarial = (images + self.eps * start).clamp(0.0, 1.0)
        for step in range(1, self.steps + 1):
            moved = adversarial + self.step * self.gradient(logits, adversarial, labels).sign()
            adversarial = moved.clamp(images - self.eps, images + self.eps).clamp(0.0, 1.0)
            if on_step is not None:
                on_step(step)
        return adversarial

    def gradient(self, logits: Logits, images: Tensor, labels: Tensor) -> Tensor:
        """Gradient of the mean cross-entropy over ``eot`` copies of every image: ``[B, C, H, W]``."""
        parts: list[Tensor] = []
        for first in range(0, len(images), self.batch):
            some, truth = images[first : first + self.batch], labels[first : first + self.batch]
            point = some.detach().requires_grad_(True)
            answers = logits(point.repeat(self.eot, 1, 1, 1))
            # Summed over the batch, not averaged: an image's gradient does not depend on its batch-mates.
            loss = F.cross_entropy(answers, truth.repeat(self.eot), reduction="sum") / self.eot
            parts.extend(torch.autograd.grad(loss, point))
        return torch.cat(parts)
