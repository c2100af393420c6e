"""The attack on the plain classifier, whose images are given to the defence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from .attack import AttackTarget
from .expectation import Logits
from .gradient import Algorithm, ball_options
from .pgd import PGD, PgdAttack
from .protocol import AttackProtocol
from .settings import AttackSettings


class TransferAttack(PgdAttack):
    """PGD on the classifier alone. It draws no noise, so it needs no EOT, and one look chooses among candidates."""

    name = "transfer"
    words = "PGD on the plain classifier; its images are given to the defence"
    through_defence = False
    on_plain = True

    def attacked(self, target: AttackTarget, settings: AttackSettings, seed: int) -> Logits:
        return target.twin.logits

    def judged(self, target: AttackTarget, settings: AttackSettings, seed: int) -> tuple[Logits, int]:
        return target.twin.logits, 1

    def algorithms(
        self, target: AttackTarget, settings: AttackSettings, images: Tensor, seed: int
    ) -> Sequence[Algorithm]:
        return [PGD(**{**ball_options(settings, seed), "eot": 1})]

    def cost(self, target: AttackTarget, settings: AttackSettings) -> float:
        return 0.02 * settings.restarts * settings.steps

    def protocol(self, target: AttackTarget, settings: AttackSettings, common: dict[str, Any]) -> AttackProtocol:
        return replace(
            super().protocol(target, settings, common),
            gradient="exact, of the cross-entropy",
            eot=None,
            target="the plain classifier",
            mask_gradient=None,
            selection="worst of the candidates" if settings.restarts > 1 else "last iterate",
        )
