"""What the CIFAR-10 demonstration computes: its attacks, its methods, and everything that comes out."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgepure.demo import MethodRun, ScoredRun
from edgepure.parity import Verification
from edgepure_calibration.attacks import PGD

Float32 = NDArray[np.float32]
Labels = NDArray[np.int64]

#: Made on the plain classifier and given to every method; and through the whole defence.
TRANSFER = PGD(eps=8 / 255, steps=40, seed=1)
WHITEBOX = PGD(eps=8 / 255, steps=10, eot=2, seed=2)
#: The methods of the table; the first ones are attacked through the defence as well.
METHODS: tuple[str, ...] = (
    "heterogeneous-6",
    "uniform-6",
    "uniform-3",
    "heterogeneous-6-ssni-sigmoid",
    "gnsp-6",
    "one-call",
)
WHITEBOXED = METHODS[:3]
SHIPPED_METHODS: tuple[str, ...] = ("heterogeneous-6", "uniform-3", "one-call")
IMAGES, WHITEBOX_IMAGES = 200, 32
NOISE_SEED, ATTACKER_SEED = 41, 77


@dataclass
class Run:
    """Everything that was computed. Images are [N, 3, 32, 32] float32 in [0, 1]."""

    clean: Float32
    labels: Labels
    verification: Verification
    attacked: Float32 = field(default_factory=lambda: np.zeros((0, 3, 32, 32), np.float32))
    plain: dict[str, Labels] = field(default_factory=dict)
    methods: dict[str, MethodRun] = field(default_factory=dict)
    adversarial: dict[str, Float32] = field(default_factory=dict)
    whitebox: dict[str, ScoredRun] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
