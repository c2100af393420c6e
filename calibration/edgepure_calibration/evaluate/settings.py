"""What an evaluation does: attacks, their strength, decisions."""

from __future__ import annotations

from dataclasses import dataclass

from edgepure.errors import ConfigError

from ..attacks.attack import Attack
from ..attacks.known import DEFAULT_ATTACKS, attack_named
from ..attacks.settings import AttackSettings

#: So many images are evaluated at most unless a number is asked for; critics ask for at least so many.
USUAL_IMAGES = 256


@dataclass(frozen=True)
class EvaluateSettings(AttackSettings):
    """The strength of the attacks (see `AttackSettings`), and:

    Attributes:
        attacks: names of `edgepure_calibration.attacks.known_attacks`; none: only clean images are counted.
        mask_gradient: other than ``none``: presets with a mask are attacked in this way too, beside ``none``.
        votes: K of the majority; None: as the preset says.
        worst: N of worst-of-N, and the length of the resubmission curve at least.
        images: drawn, every class in proportion; None: all, at most 256.
        seeds: one whole run of each attack for each of them.
        subset_seed: of the draw of the images.
        noise_seed: of the judging noise; None: secret, drawn by the system, and recorded afterwards.
        cross: give the images of each preset's strongest attack to the other presets too.
        baselines: names of `edgepure_calibration.evaluate.baselines.BASELINES` that are attacked beside the presets.
        noise_policy: run the experiment of `edgepure_calibration.evaluate.noise_experiment` too, on each preset.

    Raises:
        ConfigError: an unknown attack, or a value out of range.
    """

    attacks: tuple[str, ...] = DEFAULT_ATTACKS
    votes: int | None = None
    worst: int = 10
    images: int | None = None
    seeds: tuple[int, ...] = (0,)
    subset_seed: int = 0
    noise_seed: int | None = None
    noise_policy: bool = False
    cross: bool = False
    baselines: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in self.attacks:
            attack_named(name)
        super().__post_init__()
        for attack in self.chosen():
            if self.norm not in attack.norms:
                attack.check(self, classes=3)
        if not self.seeds or len(set(self.seeds)) != len(self.seeds) or not all(0 <= s < 2**31 for s in self.seeds):
            raise ConfigError(
                f"seeds {list(self.seeds)}: give different whole numbers from 0 to 2^31 - 1", code="E-seeds"
            )
        self._at_least_one("worst", "votes", "images")

    def chosen(self) -> list[Attack]:
        """The attacks, in the order in which they were named."""
        return [attack_named(name) for name in self.attacks]
