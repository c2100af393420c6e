"""A patch: a square of the image in which everything is allowed, and nothing outside (Brown et al. 2017).

The place is drawn for every image, as a sticker lies somewhere; several restarts try several places.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .attack import AttackTarget
from .expectation import Logits, expected
from .gradient import Algorithm, GradientAttack, common_options
from .losses import cross_entropy
from .protocol import AttackProtocol
from .settings import AttackSettings


@dataclass(frozen=True)
class Patch:
    """PGD on the pixels of a square of about ``share`` of the image, each anywhere in [0, 1], from random ones.

    Every step moves them by the sign of the gradient of the cross-entropy, averaged over ``eot`` copies. The last
    iterate is the result.
    """

    share: float
    steps: int
    eot: int = 1
    seed: int = 0
    batch: int = 64
    copies: int | None = None

    @property
    def step(self) -> float:
        """The step size: enough to cross the range of a pixel more than twice."""
        return min(1.0, 2.5 / self.steps)

    def side(self, height: int, width: int) -> int:
        """Pixels a side of the square."""
        return max(1, min(height, width, round(math.sqrt(self.share * height * width))))

    def places(self, images: Tensor) -> Tensor:
        """Where each image ``[B, C, H, W]`` has its patch: ``[B, 1, H, W]``, 0 or 1. The seed decides."""
        count, _, height, width = images.shape
        side = self.side(height, width)
        drawn = torch.rand((2, count, 1), generator=torch.Generator().manual_seed(self.seed), dtype=torch.float64)
        inside = []
        for share, size in zip(drawn, (height, width), strict=True):
            first = (share * (size - side + 1)).long()
            at = torch.arange(size)
            inside.append((at >= first) & (at < first + side))
        places: Tensor = (inside[0][:, None, :, None] & inside[1][:, None, None, :]).to(images)
        return places

    def __call__(
        self, logits: Logits, images: Tensor, labels: Tensor, on_step: Callable[[int], None] | None = None
    ) -> Tensor:
        """Attack ``logits``; arguments as of `PGD`. Returns ``[B, C, H, W]`` in [0, 1]."""
        inside = self.places(images)
        generator = torch.Generator().manual_seed(self.seed + 1)
        made = images + inside * (torch.rand(images.shape, generator=generator).to(images) - images)
        for step in range(1, self.steps + 1):
            found = expected(logits, made, labels, cross_entropy, eot=self.eot, batch=self.batch, copies=self.copies)
            made = (made + self.step * inside * found.gradient.sign()).clamp(0.0, 1.0)
            if on_step is not None:
                on_step(step)
        return made


class PatchAttack(GradientAttack):
    """`Patch` with EOT through the whole defence."""

    name = "patch"
    words = "a square in which every pixel is free; exact gradients; no Lp ball"
    through_defence = True

    def algorithms(
        self, target: AttackTarget, settings: AttackSettings, images: Tensor, seed: int
    ) -> Sequence[Algorithm]:
        return [Patch(settings.patch, **common_options(settings, seed))]

    def protocol(self, target: AttackTarget, settings: AttackSettings, common: dict[str, Any]) -> AttackProtocol:
        height, width = target.purifier.image_shape[1:]
        patch = Patch(settings.patch, settings.steps)
        side = patch.side(height, width)
        return replace(
            super().protocol(target, settings, common),
            norm=None,
            eps=None,
            step_size=f"step {patch.step:.3g}",
            bounded=f"a square of {side} x {side} pixels of {height} x {width}, at a place drawn for each image; "
            "inside anything in [0, 1], outside nothing",
        )
