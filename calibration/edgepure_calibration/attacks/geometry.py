"""Rotations and shifts: small changes of the picture as a whole, which no Lp ball holds (Engstrom et al. 2019).

Their loss has many maxima, so following its gradient helps little: random ones are tried, and the worst is kept.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from edgepure.types import Float32

from .attack import Attack, AttackSeeds, AttackTarget, Labels, OnShare
from .defence import Defence
from .protocol import AttackProtocol
from .selection import select_worst
from .settings import AttackSettings

#: Largest rotation, and largest shift along each axis in pixels.
DEGREES, PIXELS = 10.0, 1.0
#: Pairs of rotation and shift that are tried at most, one in a step.
MOST_TRIED = 20


class GeometryAttack(Attack):
    """The worst of random rotations and shifts, judged through the twin of the whole defence."""

    name = "geometry"
    words = f"rotations of up to {DEGREES:g} degrees and shifts of up to {PIXELS:g} pixel; no gradient"

    def cost(self, target: AttackTarget, settings: AttackSettings) -> float:
        return float(self._tried(settings) * settings.selection * target.calls)

    def protocol(self, target: AttackTarget, settings: AttackSettings, common: dict[str, Any]) -> AttackProtocol:
        return replace(
            super().protocol(target, settings, common),
            gradient="none: random search",
            bounded=f"a rotation of at most {DEGREES:g} degrees and a shift of at most {PIXELS:g} pixel, bilinear, the "
            "border repeated",
            norm=None,
            eps=None,
            steps=self._tried(settings),
            selection=f"worst of the candidates by {settings.selection} evaluations with fresh noise",
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
        tried = self._tried(settings)
        generator = torch.Generator().manual_seed(seeds.starts[0])
        candidates = [moved(x, 2.0 * torch.rand((len(x), 3), generator=generator) - 1.0) for _ in range(tried)]
        judge = Defence(target.twin, target.preset, seeds.selection)
        total = tried * settings.selection
        chosen, _ = select_worst(
            judge, candidates, y, settings.selection, settings.batch, lambda done: on_share(done / total)
        )
        return np.asarray(chosen.cpu().numpy(), np.float32)

    def _tried(self, settings: AttackSettings) -> int:
        return min(settings.steps, MOST_TRIED)


def moved(images: Tensor, by: Tensor) -> Tensor:
    """Images ``[B, C, H, W]``, rotated and shifted by shares ``[B, 3]`` in [-1, 1] of the largest of each."""
    angle = torch.deg2rad(DEGREES * by[:, 0])
    height, width = images.shape[2:]
    across, down = (2.0 * PIXELS * by[:, i + 1] / size for i, size in enumerate((width, height)))
    cos, sin = angle.cos(), angle.sin()
    ratio = height / width
    rows = [torch.stack([cos, -sin * ratio, across], 1), torch.stack([sin / ratio, cos, down], 1)]
    grid = F.affine_grid(torch.stack(rows, 1).to(images), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False).clamp(0.0, 1.0)
