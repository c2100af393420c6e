"""An attack is one object: its name, what it costs, how it is described, and how it is run.

Evaluation, tuning, the command line and the pages know of an attack only what is here, so a new one is one file with
one object in it (`edgepure_calibration.attacks.known` lists them).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from edgepure import Preset, Purifier
from edgepure.errors import ConfigError
from edgepure.types import Float32
from edgepure_export.twin.reference import TorchReference

from ..digest import derived_seed
from .protocol import AttackProtocol
from .settings import AttackSettings

Labels = NDArray[np.int64]
#: Told the share of an attack that is done.
OnShare = Callable[[float], None]


@dataclass(frozen=True)
class AttackTarget:
    """What is attacked: a preset on its engine, and its differentiable twin.

    Attributes:
        name, preset: the defence.
        purifier: the deployed graphs.
        twin: the same networks in PyTorch.
        device: where PyTorch computes gradients.
    """

    name: str
    preset: Preset
    purifier: Purifier
    twin: TorchReference
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.preset.cascade is not None:
            raise ConfigError(
                f"preset {self.name}: attacks go through one noise, and a cascade has several, so its accuracy would "
                "seem too high; attack presets of its noises, and certify the cascade",
                code="E-attack-cascade",
            )

    @property
    def calls(self) -> int:
        """UNet calls of one purification at its full noise level, with what comes before it."""
        planner = self.purifier.planner
        return planner.before(self.preset) + planner.plan(self.preset).unet_calls


@dataclass(frozen=True)
class AttackSeeds:
    """Where everything that an attack draws comes from.

    Attributes:
        base: what the others follow from, where they do.
        noise: of the defence's noise as the attacker draws it himself.
        starts: of each restart's start in the ball.
        selection: of the noise of the evaluations that choose among candidates.
        queries: of the engine's noise when a black-box attack asks it.
    """

    base: int
    noise: int
    starts: tuple[int, ...]
    selection: int = 0
    queries: int = 0

    @classmethod
    def derived(cls, seed: int, restarts: int = 1) -> AttackSeeds:
        """All of them from one seed."""
        return cls(
            base=seed,
            noise=derived_seed(seed, "attacker's noise"),
            starts=tuple(derived_seed(seed, f"restart {number}") for number in range(restarts)),
            selection=derived_seed(seed, "selection"),
            queries=derived_seed(seed, "noise of the answers"),
        )


class Attack(ABC):
    """One attack.

    Attributes:
        name: by which it is asked for.
        words: what it is, in half a line.
        through_defence: its gradient goes through the whole defence, so presets with a mask can be attacked through
            the mask too (`AttackSettings.mask_gradient`).
        surrogate: its gradient is not that of what is deployed, so its number flatters: it is marked everywhere and
            never counts as the strongest attack.
        on_plain: it attacks the plain classifier and knows of no defence: its images serve every preset.
        asks_engine: its images depend on what the deployed engine answers.
        includes: names of attacks that it contains.
        norms: the balls that it has.
        revision: counted up when the attack computes something else, so that kept results of the former are not used.
    """

    name: ClassVar[str]
    words: ClassVar[str]
    through_defence: ClassVar[bool] = False
    surrogate: ClassVar[bool] = False
    on_plain: ClassVar[bool] = False
    asks_engine: ClassVar[bool] = False
    includes: ClassVar[tuple[str, ...]] = ()
    norms: ClassVar[tuple[str, ...]] = ("linf", "l2")
    revision: ClassVar[int] = 1

    def applies(self, target: AttackTarget) -> bool:
        """Whether it means something for this preset; one that does not is left out without a word."""
        return True

    def check(self, settings: AttackSettings, classes: int) -> None:
        """Raise ConfigError if it cannot be run with these settings on a classifier of so many classes."""
        if settings.norm not in self.norms:
            raise ConfigError(
                f"the attack {self.name} is there for {' and '.join(self.norms)} only; leave it out of --attack, or "
                f"give --norm {self.norms[0]}",
                code="E-attack-norm",
            )

    @abstractmethod
    def cost(self, target: AttackTarget, settings: AttackSettings) -> float:
        """UNet calls for one image and one seed, gradients counted as several: for progress and for the estimate."""

    def protocol(self, target: AttackTarget, settings: AttackSettings, common: dict[str, Any]) -> AttackProtocol:
        """How it is described: as an attack in the ball without a gradient, unless it says more.

        ``common``: the fields that all attacks of an evaluation share (judge, data, seeds).
        """
        return AttackProtocol(
            attack=self.name,
            gradient="none",
            bounded=inside(settings),
            norm=settings.norm,
            eps=settings.eps,
            selection="none",
            surrogate=self.surrogate,
            target="the plain classifier" if self.on_plain else "the whole defence",
            **common,
        )

    @abstractmethod
    def run(
        self,
        target: AttackTarget,
        settings: AttackSettings,
        images: Float32,
        labels: Labels,
        seeds: AttackSeeds,
        on_share: OnShare,
    ) -> Float32:
        """The attacked images.

        Args:
            target: what is attacked.
            settings: how strongly.
            images: ``[B, C, H, W]`` float32 in [0, 1].
            labels: ``[B]``, the true classes.
            seeds: of everything that is drawn: equal seeds give equal images.
            on_share: called with the share that is done.

        Returns:
            ``[B, C, H, W]`` float32 in [0, 1].
        """

    @property
    def through_rows(self) -> bool:
        """Whether it differentiates rows of a purification, which takes memory."""
        return self.through_defence or self.surrogate


def inside(settings: AttackSettings) -> str:
    """The ball of the settings, in words."""
    return f"{settings.norm} ball of radius {settings.eps:.4g} on images in [0, 1]"
