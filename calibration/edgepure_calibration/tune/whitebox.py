"""The attacks of a tuning run, on the classifier alone and through the whole defence. Needs PyTorch.

The search and the finalists are attacked in different ways: a preset that was chosen because one attack fails on it
must not be judged by the same attack again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import torch

from edgepure.images.dataset import LabelledImages
from edgepure_export.twin.reference import TorchReference

from ..attacks import APGD, PGD, Defence, Logits
from .candidate import Candidate
from .parts import FINAL_TRANSFER, SEARCH_TRANSFER
from .settings import TuneSettings

#: Gives the differentiable twin of the bundle in a precision. It is asked often, so it keeps what it has made.
TwinLoader = Callable[[str], TorchReference]

#: Steps of the attack on the plain classifier.
TRANSFER_STEPS = 40


#: An attack in an Lp ball: settings, and a call that attacks.
Attack = PGD | APGD
#: Settings that change how much memory an attack takes, and nothing else.
_ONLY_MEMORY = ("batch", "copies")


class WhiteBox:
    """Attacks candidates through the differentiable twin of their bundle, in the precision that is deployed. The
    deployed graphs answer what it makes.

    ``attacker_seed``: of the noise that the attacker draws himself; he does not know that of the defence.
    """

    def __init__(self, twin: TwinLoader, attack: Attack, attacker_seed: int) -> None:
        self.twin, self.attack, self.attacker_seed = twin, attack, attacker_seed

    def __call__(
        self, candidate: Candidate, data: LabelledImages, on_step: Callable[[int], None] | None = None
    ) -> LabelledImages:
        """The images as the attack through ``candidate`` leaves them."""
        defence = Defence(self.twin(candidate.precision), candidate.preset, self.attacker_seed)
        return _attacked(self.attack, defence, data, on_step)

    def protocol(self) -> dict[str, Any]:
        """Everything that has to be known to repeat or doubt the numbers."""
        return {
            **describe(self.attack),
            "target": "the preset with its classifier, through the PyTorch twin; the deployed graphs answer",
            "gradient": "exact, through every row and the classifier; mask and SSNI level detached",
            "attacker's noise": self.attacker_seed,
        }


def transfer(twin: TwinLoader, eps: float) -> Callable[[LabelledImages, int], LabelledImages]:
    """PGD on the plain classifier, as `make_parts` wants it."""

    def attack(data: LabelledImages, seed: int) -> LabelledImages:
        return _attacked(PGD(eps=eps, steps=TRANSFER_STEPS, seed=seed), twin("fp32").logits, data, None)

    return attack


def transfer_protocol(settings: TuneSettings) -> dict[str, Any]:
    """Of `transfer`, as `make_parts` uses it."""
    found = describe(PGD(eps=settings.eps, steps=TRANSFER_STEPS))
    return {
        **found,
        "seed": {"search": settings.seed + SEARCH_TRANSFER, "finalists": settings.seed + FINAL_TRANSFER},
        "target": "the plain classifier; the same images are then given to every preset",
    }


def search_attack(settings: TuneSettings) -> PGD:
    """Of the search: PGD with EOT on the cross-entropy."""
    return PGD(eps=settings.eps, steps=settings.search_steps, eot=settings.search_eot, seed=settings.seed + 3)


def final_attack(settings: TuneSettings, classes: int) -> APGD:
    """Of the finalists: Auto-PGD on the DLR loss, which needs three classes, else on the cross-entropy. Another loss,
    another rule for the steps, the worst iterate and not the last, more steps, more EOT, another seed."""
    return APGD(
        eps=settings.eps,
        steps=settings.final_steps,
        loss="dlr" if classes > 2 else "ce",
        eot=settings.final_eot,
        seed=settings.seed + 4,
    )


def describe(attack: Attack) -> dict[str, Any]:
    """Name and settings of an attack."""
    found = {key: value for key, value in asdict(attack).items() if value is not None and key not in _ONLY_MEMORY}
    return {"attack": type(attack).__name__, "loss": "ce", **found}


def _attacked(
    attack: Attack, logits: Logits, data: LabelledImages, on_step: Callable[[int], None] | None
) -> LabelledImages:
    assert data.labels is not None
    found = attack(logits, torch.from_numpy(data.images), torch.from_numpy(data.labels), on_step)
    return replace(data, images=found.detach().numpy())
