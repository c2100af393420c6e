"""BPDA (Athalye et al. 2018): the purification is run as deployed, and its gradient is taken to be the identity."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from .attack import AttackTarget
from .defence import Defence
from .expectation import Logits
from .pgd import PgdAttack
from .protocol import AttackProtocol
from .settings import AttackSettings


class IdentityBackward(Defence):
    """The defence, with the identity in the place of the purification's gradient."""

    def __call__(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            purified = self.purification(images.detach()).purified
        return self._twin.logits(images + (purified - images).detach())


class BpdaAttack(PgdAttack):
    """PGD with EOT on `IdentityBackward`."""

    name = "bpda"
    words = "PGD-EOT, the purification's gradient replaced by the identity"
    through_defence = False

    def attacked(self, target: AttackTarget, settings: AttackSettings, seed: int) -> Logits:
        return IdentityBackward(target.twin, target.preset, seed)

    def cost(self, target: AttackTarget, settings: AttackSettings) -> float:
        return self._looks(settings) * target.calls + self._selecting(target, settings)

    def protocol(self, target: AttackTarget, settings: AttackSettings, common: dict[str, Any]) -> AttackProtocol:
        return replace(
            super().protocol(target, settings, common),
            gradient="cross-entropy; purification as deployed forward, identity backward (BPDA)",
            mask_gradient=None,
        )
