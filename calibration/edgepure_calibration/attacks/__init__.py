"""Attacks on a defended classifier, by exact gradients or without any."""

from .apgd import APGD
from .balls import Ball, Norm
from .defence import Defence, IdentityBackward, KnownNoise, NormPenalty, surrogate
from .expectation import Logits, Penalty
from .low_frequency import LowFrequency
from .pgd import PGD
from .selection import select_worst
from .square import Square, SquareResult

__all__ = [
    "APGD", "PGD", "Ball", "Defence", "IdentityBackward", "KnownNoise", "Logits", "LowFrequency", "Norm", "NormPenalty",
    "Penalty", "Square", "SquareResult", "select_worst", "surrogate",
]  # fmt: skip
