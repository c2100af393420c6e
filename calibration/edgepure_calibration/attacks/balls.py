"""The sets that attacks stay in: an Lp ball around the image, cut with the range of pixels [0, 1]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Norm = Literal["linf", "l2"]


@dataclass(frozen=True)
class Ball:
    """All images of [0, 1] at most ``eps`` away: in every pixel (``linf``), or in Euclidean length (``l2``)."""

    norm: Norm
    eps: float

    def project(self, moved: Tensor, centre: Tensor) -> Tensor:
        """The nearest point of the ball (``linf``) or one scaled into it (``l2``), clipped to [0, 1]: ``[B, C, H, W]``.

        ``centre`` lies in [0, 1], so clipping cannot leave the ball.
        """
        if self.norm == "linf":
            return moved.clamp(centre - self.eps, centre + self.eps).clamp(0.0, 1.0)
        delta = moved - centre
        scale = (self.eps / length(delta).clamp_min(1e-12)).clamp_max(1.0)
        return (centre + delta * scale).clamp(0.0, 1.0)

    def direction(self, gradient: Tensor) -> Tensor:
        """The step of unit size that ascends most steeply."""
        if self.norm == "linf":
            return gradient.sign()
        return gradient / length(gradient).clamp_min(1e-12)

    def start(self, centre: Tensor, seed: int) -> Tensor:
        """A random point of the ball: uniform (``linf``), or in a random direction at a uniform distance (``l2``)."""
        generator = torch.Generator().manual_seed(seed)
        if self.norm == "linf":
            drawn = 2.0 * torch.rand(centre.shape, generator=generator) - 1.0
        else:
            drawn = torch.randn(centre.shape, generator=generator)
            drawn = drawn / length(drawn) * torch.rand((len(centre), 1, 1, 1), generator=generator)
        return (centre + self.eps * drawn.to(centre)).clamp(0.0, 1.0)


def length(delta: Tensor) -> Tensor:
    """Euclidean length of each image, [B, C, H, W] to [B, 1, 1, 1]."""
    result: Tensor = torch.linalg.vector_norm(delta.flatten(1), dim=1).reshape(-1, 1, 1, 1)
    return result
