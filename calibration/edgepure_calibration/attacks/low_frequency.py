"""An attack that no Lp ball of the usual size describes: large, smooth changes, as diffusion models keep them.

Purification removes what is small and rough. A smooth shift of brightness is neither, and under attacks of this kind
purifiers fall further than under Lp attacks. DiffBreak bounds such an attack by LPIPS, which needs another network;
this one has a plain bound.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from .attack import AttackTarget
from .expectation import Logits, expected
from .gradient import Algorithm, GradientAttack, common_options
from .losses import cross_entropy
from .protocol import AttackProtocol
from .settings import AttackSettings


@dataclass(frozen=True)
class LowFrequency:
    """The change of the image is a coarse field of ``grid`` x ``grid`` values per channel, enlarged bilinearly.

    What is bounded: every value of the field lies in [-eps, eps], so no pixel changes by more than ``eps``, and between
    neighbouring values of the field the change is linear. Nothing else is bounded; ``eps`` is meant to be larger than
    the radius of an Linf attack. The field is found by sign ascent on the cross-entropy, averaged over ``eot`` copies.
    """

    eps: float
    steps: int
    grid: int = 4
    eot: int = 1
    step_size: float | None = None
    seed: int = 0
    batch: int = 64
    copies: int | None = None

    @property
    def step(self) -> float:
        """The step size in use."""
        return self.step_size if self.step_size is not None else 2.5 * self.eps / self.steps

    def __call__(
        self, logits: Logits, images: Tensor, labels: Tensor, on_step: Callable[[int], None] | None = None
    ) -> Tensor:
        """Attack ``logits``; arguments as of `PGD`. Returns ``[B, C, H, W]`` in [0, 1]."""
        generator = torch.Generator().manual_seed(self.seed)
        shape = (len(images), images.shape[1], self.grid, self.grid)
        field = self.eps * (2.0 * torch.rand(shape, generator=generator) - 1.0).to(images)
        for step in range(1, self.steps + 1):
            field = field.detach().requires_grad_(True)
            moved = apply_field(images, field)
            found = expected(logits, moved, labels, cross_entropy, eot=self.eot, batch=self.batch, copies=self.copies)
            (gradient,) = torch.autograd.grad(moved, field, grad_outputs=found.gradient)
            field = (field + self.step * gradient.sign()).clamp(-self.eps, self.eps)
            if on_step is not None:
                on_step(step)
        return apply_field(images, field).detach()


def apply_field(images: Tensor, field: Tensor) -> Tensor:
    """Images ``[B, C, H, W]`` plus the field ``[B, C, g, g]``, enlarged; clipped to [0, 1]."""
    change = F.interpolate(field, size=images.shape[2:], mode="bilinear", align_corners=True)
    return (images + change).clamp(0.0, 1.0)


class LowFrequencyAttack(GradientAttack):
    """`LowFrequency` with EOT through the whole defence."""

    name = "low-frequency"
    words = "a smooth field is added; exact gradients; no Lp ball of radius eps"
    through_defence = True
    #: Values of the field a side, in units of `AttackSettings.grid`.
    finer: ClassVar[int] = 1

    def algorithms(
        self, target: AttackTarget, settings: AttackSettings, images: Tensor, seed: int
    ) -> Sequence[Algorithm]:
        return [
            LowFrequency(eps=settings.field_size, grid=self.finer * settings.grid, **common_options(settings, seed))
        ]

    def protocol(self, target: AttackTarget, settings: AttackSettings, common: dict[str, Any]) -> AttackProtocol:
        size, grid = settings.field_size, self.finer * settings.grid
        return replace(
            super().protocol(target, settings, common),
            norm=None,
            eps=None,
            step_size=f"step {2.5 * size / settings.steps:.3g}",
            bounded=f"a field of {grid} x {grid} values a channel in [-{size:.4g}, {size:.4g}], "
            f"enlarged bilinearly: no pixel changes by more than {size:.4g}; no other bound (not LPIPS)",
        )


class FinerFieldAttack(LowFrequencyAttack):
    """The same with a finer field: smoothness is a matter of degree, and the union of attacks should not end at one."""

    name = "low-frequency-fine"
    words = "the same with a field of twice as many values a side"
    finer = 2
