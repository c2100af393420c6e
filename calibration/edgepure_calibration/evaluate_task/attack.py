"""PGD on a task's loss: on the task alone, or through a preset with fresh noise in every step (EOT)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from edgepure.errors import ConfigError
from edgepure.rows.noise import SeededNoise
from edgepure.types import Float32

from .losses import Loss, per_batch

#: Images [B, C, H, W] in [0, 1] and the attacker's noise -> outputs of the task by name, with a gradient.
Answer = Callable[[Tensor, SeededNoise], Mapping[str, Tensor]]


@dataclass(frozen=True)
class TaskAttack:
    """Projected gradient ascent in an Linf ball, from a random start, with steps of 2.5 * eps / steps.

    Attributes:
        eps: radius on images in [0, 1].
        steps: of the ascent.
        eot: noises that each gradient is averaged over; an attack on the task alone needs none.
        seed: of the start and of the attacker's noises, which are never those of the defence.
    """

    eps: float = 8 / 255
    steps: int = 20
    eot: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0.0 < self.eps <= 1.0:
            raise ConfigError(
                f"eps {self.eps} is a radius on images in [0, 1] and must be above 0", code="E-attack-eps"
            )
        if self.steps < 1 or self.eot < 1 or self.seed < 0:
            raise ConfigError("steps and eot must be at least 1, and the seed at least 0", code="E-attack-settings")

    def run(
        self,
        answer: Answer,
        images: Float32,
        truth: Mapping[str, Tensor],
        loss: Loss,
        *,
        random: bool,
        on_step: Callable[[], object] | None = None,
    ) -> Float32:
        """Attacked images ``[B, C, H, W]`` in [0, 1].

        Args:
            answer: what is attacked.
            truth: of the images.
            random: whether the answer depends on the noise, so that gradients are averaged over it.
        """
        generator = torch.Generator().manual_seed(self.seed)
        clean = torch.from_numpy(images)
        x = clean + self.eps * (2.0 * torch.rand(clean.shape, generator=generator) - 1.0)
        x = x.clamp(0.0, 1.0)
        for step in range(self.steps):
            x.requires_grad_(True)
            gradient = torch.zeros_like(x)
            for draw in range(self.eot if random else 1):
                noise = SeededNoise((self.seed << 32) + step * self.eot + draw + 1)
                gradient += torch.autograd.grad(per_batch(loss, answer(x, noise), truth), x)[0]
            with torch.no_grad():
                x = x + 2.5 * self.eps / self.steps * gradient.sign()
                x = (clean + (x - clean).clamp(-self.eps, self.eps)).clamp(0.0, 1.0)
            if on_step is not None:
                on_step()
        return x.detach().numpy()
