"""An attacker who knows of SSNI: he keeps the score norm small, so that his image gets less noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from edgepure import Preset
from edgepure.errors import ConfigError
from edgepure.methods.planner import Planner
from edgepure_export.twin.noise_batches import SourceNoise
from edgepure_export.twin.reference import TorchReference

from .attack import AttackTarget
from .defence_noise import NoisePolicy
from .gradient import Algorithm, ball_options
from .pgd import PGD, PgdAttack
from .protocol import AttackProtocol
from .settings import AttackSettings


class NormPenalty:
    """What an attacker adds who knows of SSNI's score norm: ``weight * norm / reference``, subtracted from his loss.

    A small norm makes the image look clean, so it gets less noise. The norm is differentiable through the probe's rows.

    Args:
        reference: the usual norm of clean images, so that ``weight`` is in units of the loss.

    Raises:
        ConfigError: the preset has no SSNI.
    """

    def __init__(self, twin: TorchReference, preset: Preset, weight: float, reference: float, seed: int) -> None:
        if preset.ssni is None or twin.schedule is None:
            raise ConfigError("the preset has no SSNI, so there is no score norm to keep small", code="E-attack-preset")
        self._twin, self._preset, self._weight, self._reference = twin, preset, weight, reference
        self._noise = NoisePolicy("fresh", seed)

    def __call__(self, images: Tensor) -> Tensor:
        return self._weight * self.norms(images) / self._reference

    def norms(self, images: Tensor) -> Tensor:
        """Score norms ``[B]`` of images ``[B, C, H, W]`` in [0, 1], differentiable, with new noise at every call."""
        assert self._twin.schedule is not None
        probe = Planner(self._twin.schedule, images[0].numel()).probe(self._preset)
        assert probe is not None
        plans = [probe] * len(images)
        noise = SourceNoise(self._noise.next(), plans, images, probe=True)
        return self._twin.score_norm(images, plans, noise)


class SmallNormAttack(PgdAttack):
    """PGD with EOT whose loss is lowered by the score norm."""

    name = "pgd-small-norm"
    words = "the same, and the image's score norm is kept small to get less noise from SSNI"

    def applies(self, target: AttackTarget) -> bool:
        return target.preset.ssni is not None

    def algorithms(
        self, target: AttackTarget, settings: AttackSettings, images: Tensor, seed: int
    ) -> Sequence[Algorithm]:
        with torch.no_grad():
            reference = float(NormPenalty(target.twin, target.preset, 1.0, 1.0, seed).norms(images).mean())
        penalty = NormPenalty(target.twin, target.preset, settings.norm_penalty, reference, seed)
        return [PGD(penalty=penalty, **ball_options(settings, seed))]

    def protocol(self, target: AttackTarget, settings: AttackSettings, common: dict[str, Any]) -> AttackProtocol:
        return replace(
            super().protocol(target, settings, common),
            norm_penalty=settings.norm_penalty,
            gradient=f"{self._whole(target, settings)}; cross-entropy less {settings.norm_penalty:g} x score norm / "
            "its clean mean",
        )
