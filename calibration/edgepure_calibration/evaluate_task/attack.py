"""PGD on a task's loss: on the task alone, or through a preset with fresh noise in every step (EOT); in a ball, or in a
patch in which everything is allowed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from edgepure.errors import ConfigError
from edgepure.rows.noise import SeededNoise
from edgepure.types import Float32

from ..attacks.patch import Patch
from .losses import Loss, per_batch

#: Images [B, C, H, W] in [0, 1] and the attacker's noise -> outputs of the task by name, with a gradient.
Answer = Callable[[Tensor, SeededNoise], Mapping[str, Tensor]]


@dataclass(frozen=True)
class TaskAttack:
    """Projected gradient ascent from a random start, in an Linf ball with steps of 2.5 * eps / steps, or in a patch.

    Attributes:
        eps: radius on images in [0, 1].
        patch: share of the pixels in a square, at a place that the seed draws for each image: inside anything in
            [0, 1], outside nothing (`edgepure_calibration.attacks.patch`). Then ``eps`` does not count.
        steps: of the ascent.
        eot: noises that each gradient is averaged over; an attack on the task alone needs none.
        seed: of the start and of the attacker's noises, which are never those of the defence.
    """

    eps: float = 8 / 255
    steps: int = 20
    eot: int = 1
    seed: int = 0
    patch: float | None = None

    def __post_init__(self) -> None:
        if not 0.0 < self.eps <= 1.0:
            raise ConfigError(
                f"eps {self.eps} is a radius on images in [0, 1], and lies above 0 and not above 1", code="E-attack-eps"
            )
        if self.steps < 1 or self.eot < 1 or self.seed < 0:
            raise ConfigError("steps and eot must be at least 1, and the seed at least 0", code="E-attack-settings")
        if self.patch is not None and not 0.0 < self.patch <= 1.0:
            raise ConfigError(
                f"patch {self.patch} is the share of the pixels in the square and lies between 0 and 1",
                code="E-attack-settings",
            )

    @property
    def bounded(self) -> str:
        """What an attacked image may be."""
        return f"Linf {self.eps:.3g}" if self.patch is None else f"patch of {100 * self.patch:g} % of the pixels"

    @property
    def step(self) -> float:
        """Of the ascent, on images in [0, 1]."""
        return 2.5 * self.eps / self.steps if self.patch is None else min(1.0, 2.5 / self.steps)

    def bounds(self, clean: Tensor) -> tuple[Tensor, Tensor]:
        """The least and the most that the pixels of images [B, C, H, W] may become."""
        if self.patch is None:
            return (clean - self.eps).clamp(min=0.0), (clean + self.eps).clamp(max=1.0)
        inside = Patch(self.patch, self.steps, seed=self.seed).places(clean)
        return clean * (1.0 - inside), torch.maximum(clean, inside)

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
        low, high = self.bounds(clean)
        x = low + (high - low) * torch.rand(clean.shape, generator=generator)
        for step in range(self.steps):
            x.requires_grad_(True)
            gradient = torch.zeros_like(x)
            for draw in range(self.eot if random else 1):
                noise = SeededNoise((self.seed << 32) + step * self.eot + draw + 1)
                gradient += torch.autograd.grad(per_batch(loss, answer(x, noise), truth), x)[0]
            with torch.no_grad():
                x = torch.clamp(x + self.step * gradient.sign(), low, high)
            if on_step is not None:
                on_step()
        return x.detach().numpy()
