"""The lines of an evaluation's table: which attacks apply to a preset, and what they cost together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..attacks.attack import Attack, AttackTarget
from ..attacks.known import known_attacks
from ..attacks.settings import AttackSettings
from .baselines import BaselineTarget
from .noise_experiment import policy_cost
from .settings import EvaluateSettings


@dataclass(frozen=True)
class Line:
    """One attack on one preset, with the settings that it is run with."""

    attack: Attack
    settings: AttackSettings

    def cost(self, target: AttackTarget) -> float:
        """UNet calls for one image and one seed, gradients counted as several."""
        return self.attack.cost(target, self.settings)


def lines(target: AttackTarget, settings: EvaluateSettings) -> list[Line]:
    """The attacks that apply to a preset, in the order of `known_attacks`: with the mask detached, and presets with a
    mask once more as ``settings.mask_gradient`` says.

    Raises:
        ConfigError: an attack that was asked for cannot be run on this bundle.
    """
    found: list[Line] = []
    for name, attack in known_attacks().items():
        if name not in settings.attacks:
            continue
        attack.check(settings, len(target.purifier.classes))
        if not attack.applies(target) or (attack.surrogate and isinstance(target, BaselineTarget)):
            continue
        found.append(Line(attack, replace(settings, mask_gradient="none")))
        if attack.through_defence and target.preset.mask is not None and settings.mask_gradient != "none":
            found.append(Line(attack, settings))
    return found


def work_to_do(targets: Sequence[AttackTarget], settings: EvaluateSettings, images: int) -> float:
    """UNet calls of a whole evaluation, gradients counted as several."""
    total = 0.0
    for target in targets:
        votes = settings.votes or target.preset.votes.count
        answers = max(votes, settings.worst) * target.calls
        per_seed = sum(line.cost(target) + answers for line in lines(target, settings))
        total += images * (len(settings.seeds) * per_seed + answers)
        if settings.noise_policy and not isinstance(target, BaselineTarget):
            total += images * policy_cost(target, replace(settings, votes=votes))
    return total
