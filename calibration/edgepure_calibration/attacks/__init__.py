"""Attacks on a defended classifier, by exact gradients or without any. Loaded when used: most of them need PyTorch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_PUBLIC = {
    "APGD": "apgd",
    "Attack": "attack",
    "AttackProtocol": "protocol",
    "AttackSeeds": "attack",
    "AttackSettings": "settings",
    "AttackTarget": "attack",
    "Ball": "balls",
    "DEFAULT_ATTACKS": "known",
    "Defence": "defence",
    "GradientAttack": "gradient",
    "IdentityBackward": "bpda",
    "KnownNoise": "defence",
    "LowFrequency": "low_frequency",
    "NormPenalty": "small_norm",
    "PGD": "pgd",
    "Square": "square",
    "SquareResult": "square",
    "attack_named": "known",
    "known_attacks": "known",
    "select_worst": "selection",
}

__all__ = list(_PUBLIC)

if TYPE_CHECKING:
    from .apgd import APGD as APGD
    from .attack import Attack as Attack
    from .attack import AttackSeeds as AttackSeeds
    from .attack import AttackTarget as AttackTarget
    from .balls import Ball as Ball
    from .bpda import IdentityBackward as IdentityBackward
    from .defence import Defence as Defence
    from .defence import KnownNoise as KnownNoise
    from .gradient import GradientAttack as GradientAttack
    from .known import DEFAULT_ATTACKS as DEFAULT_ATTACKS
    from .known import attack_named as attack_named
    from .known import known_attacks as known_attacks
    from .low_frequency import LowFrequency as LowFrequency
    from .pgd import PGD as PGD
    from .protocol import AttackProtocol as AttackProtocol
    from .selection import select_worst as select_worst
    from .settings import AttackSettings as AttackSettings
    from .small_norm import NormPenalty as NormPenalty
    from .square import Square as Square
    from .square import SquareResult as SquareResult


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
