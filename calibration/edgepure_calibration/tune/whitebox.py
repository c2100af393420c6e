"""The attacks of a tuning run, on the classifier alone and through the whole defence. Needs PyTorch.

They are the attack objects that an evaluation runs too. The search and the finalists are attacked in different ways: a
preset that was chosen because one attack fails on it must not be judged by the same attack again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from edgepure import Purifier
from edgepure.images.dataset import LabelledImages
from edgepure_export.twin.reference import TorchReference

from ..attacks.attack import Attack, AttackSeeds, AttackTarget, OnShare
from ..attacks.known import attack_named
from ..attacks.settings import AttackSettings
from .candidate import Candidate
from .settings import TuneSettings
from .splits import FINAL_TRANSFER, SEARCH_TRANSFER

#: Gives the differentiable twin of the bundle in a precision. It is asked often, so it keeps what it has made.
TwinLoader = Callable[[str], TorchReference]

#: Steps of the attack on the plain classifier.
TRANSFER_STEPS = 40


@dataclass(frozen=True)
class WhiteBox:
    """Attacks candidates through the differentiable twin of their bundle, in the precision that is deployed. The
    deployed graphs answer what it makes.

    Attributes:
        twin: see `TwinLoader`.
        attack: what is run.
        settings: how strongly.
        seeds: of all that it draws; the attacker does not know the noise of the defence.
    """

    twin: TwinLoader
    attack: Attack
    settings: AttackSettings
    seeds: AttackSeeds

    def __call__(
        self, candidate: Candidate, purifier: Purifier, data: LabelledImages, on_share: OnShare | None = None
    ) -> LabelledImages:
        """The images as the attack through ``candidate`` leaves them."""
        target = AttackTarget("candidate", candidate.preset, purifier, self.twin(candidate.precision))
        return _attacked(self.attack, self.settings, self.seeds, target, data, on_share)

    def cost(self, candidate: Candidate, purifier: Purifier) -> float:
        """UNet calls for one image, gradients counted as several."""
        target = AttackTarget("candidate", candidate.preset, purifier, self.twin(candidate.precision))
        return self.attack.cost(target, self.settings)

    def protocol(self) -> dict[str, Any]:
        """Everything that has to be known to repeat or doubt the numbers."""
        return {
            **describe(self.attack, self.settings, self.seeds),
            "target": "the preset with its classifier, through the PyTorch twin; the deployed graphs answer",
            "gradient": "exact, through every row and the classifier; mask and SSNI level detached",
            "attacker's noise": self.seeds.noise,
        }


def transfer(twin: TwinLoader, purifier: Purifier, eps: float) -> Callable[[LabelledImages, int], LabelledImages]:
    """The attack on the plain classifier, as `make_splits` wants it: images and a seed to attacked images."""

    def attack(data: LabelledImages, seed: int) -> LabelledImages:
        target = AttackTarget("plain", purifier.preset(), purifier, twin("fp32"))
        return _attacked(attack_named("transfer"), _transfer_settings(eps), _seeds(seed, 0), target, data, None)

    return attack


def transfer_protocol(settings: TuneSettings) -> dict[str, Any]:
    """Of `transfer`, as `make_splits` uses it."""
    return {
        **describe(attack_named("transfer"), _transfer_settings(settings.eps)),
        "seed": {"search": settings.seed + SEARCH_TRANSFER, "finalists": settings.seed + FINAL_TRANSFER},
        "target": "the plain classifier; the same images are then given to every preset",
    }


def search_attack(twin: TwinLoader, settings: TuneSettings) -> WhiteBox:
    """Of the search: PGD with EOT on the cross-entropy."""
    strength = AttackSettings(eps=settings.eps, steps=settings.search_steps, eot=settings.search_eot)
    return WhiteBox(twin, attack_named("pgd"), strength, _seeds(settings.seed + 3, settings.seed + 11))


def final_attack(twin: TwinLoader, settings: TuneSettings, classes: int) -> WhiteBox:
    """Of the finalists: Auto-PGD on the DLR loss, which needs three classes, else on the cross-entropy. Another loss,
    another rule for the steps, the worst iterate and not the last, more steps, more EOT, another seed."""
    strength = AttackSettings(eps=settings.eps, steps=settings.final_steps, eot=settings.final_eot)
    attack = attack_named("apgd-dlr" if classes > 2 else "apgd-ce")
    return WhiteBox(twin, attack, strength, _seeds(settings.seed + 4, settings.seed + 12))


def describe(attack: Attack, settings: AttackSettings, seeds: AttackSeeds | None = None) -> dict[str, Any]:
    """An attack and its settings, for protocols."""
    found: dict[str, Any] = {
        "attack": attack.name,
        "words": attack.words,
        "norm": settings.norm,
        "eps": settings.eps,
        "steps": settings.steps,
        "eot": 1 if attack.on_plain else settings.eot,
    }
    return found if seeds is None else {**found, "seed": seeds.starts[0]}


def _transfer_settings(eps: float) -> AttackSettings:
    return AttackSettings(eps=eps, steps=TRANSFER_STEPS, eot=1)


def _seeds(start: int, noise: int) -> AttackSeeds:
    return AttackSeeds(base=start, noise=noise, starts=(start,))


def _attacked(
    attack: Attack,
    settings: AttackSettings,
    seeds: AttackSeeds,
    target: AttackTarget,
    data: LabelledImages,
    on_share: OnShare | None,
) -> LabelledImages:
    assert data.labels is not None
    report = on_share or (lambda share: None)
    return replace(data, images=attack.run(target, settings, data.images, data.labels, seeds, report))
