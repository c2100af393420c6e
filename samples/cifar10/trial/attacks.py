"""The attacks of the trial, all from `edgepure_calibration.attacks` but AutoAttack's own."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgepure_calibration.attacks import APGD, PGD, LowFrequency, Square, select_worst

from .systems import Float32, System

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Attack:
    """One column of the table.

    Attributes:
        kind: `clean`, `transfer`, `autoattack`, `pgd`, `apgd`, `bpda`, `square` or `low-frequency`.
        eps: radius; for `low-frequency` the bound of the field.
        steps: of the gradient attacks; for `square` the queries.
        eot: copies that a gradient is averaged over.
        selection: answers by which `apgd` chooses between the two losses.
    """

    kind: str
    eps: float = 8 / 255
    steps: int = 20
    eot: int = 2
    norm: str = "linf"
    selection: int = 4
    grid: int = 4

    @property
    def name(self) -> str:
        """Of the files: everything that decides the result is in it."""
        if self.kind == "clean":
            return "clean"
        norm = "" if self.norm == "linf" else f"-{self.norm}"
        if self.kind == "autoattack":
            return f"autoattack{norm}"
        size = f"{self.eps:.3g}" if self.norm == "l2" or self.kind == "low-frequency" else f"{255 * self.eps:g}"
        grid = f"-g{self.grid}" if self.kind == "low-frequency" else ""
        eot = f"x{self.eot}" if self.kind not in ("square", "transfer") else ""
        return f"{self.kind}{norm}{grid}-e{size}-{self.steps}{eot}"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self) | {"name": self.name}


def run(attack: Attack, system: System, plain: System, images: Float32, labels: Labels, seed: int) -> Float32:
    """The attacked images [N, 3, 32, 32] in [0, 1]. `plain` is what transferred attacks are made on."""
    if attack.kind == "clean":
        return images
    if attack.kind == "square":
        return _square(attack, system, images, labels, seed)
    if attack.kind == "autoattack":
        return _autoattack(attack, plain, images, labels, seed)
    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    eot = attack.eot if system.random else 1
    common: dict[str, Any] = {"steps": attack.steps, "seed": seed, "eot": eot, "batch": len(images)}
    ball: dict[str, Any] = {"eps": attack.eps, "norm": attack.norm}
    if attack.kind == "transfer":
        return _array(PGD(**ball, **(common | {"eot": 1}))(plain.exact(seed), x, y))
    if attack.kind == "pgd":
        return _array(PGD(**ball, **common)(system.exact(seed + 1), x, y))
    if attack.kind == "bpda":
        return _array(PGD(**ball, **common)(system.bpda(seed + 1), x, y))
    if attack.kind == "low-frequency":
        return _array(LowFrequency(eps=attack.eps, grid=attack.grid, **common)(system.exact(seed + 1), x, y))
    if attack.kind == "apgd":
        made = [APGD(loss=loss, **ball, **common)(system.exact(seed + 1), x, y) for loss in ("ce", "dlr")]
        return _array(select_worst(system.exact(seed + 2), made, y, attack.selection if system.random else 1)[0])
    raise ValueError(f"there is no attack {attack.kind!r}")


def _array(x: torch.Tensor) -> Float32:
    return np.asarray(x.detach().numpy(), np.float32)


def _square(attack: Attack, system: System, images: Float32, labels: Labels, seed: int) -> Float32:
    asked = 0

    def answers(batch: Float32) -> Float32:
        nonlocal asked
        asked += 1
        return np.asarray(system.answers(batch, 1, seed + 1000 * asked)[0], np.float32)

    recheck = 10 if system.random else 0
    found = Square(attack.eps, attack.steps, recheck=recheck, seed=seed)(answers, images, labels)
    return np.asarray(found.images, np.float32)


def _autoattack(attack: Attack, plain: System, images: Float32, labels: Labels, seed: int) -> Float32:
    """AutoAttack `standard` (its authors' code, as `pyautoattack`) on the plain classifier."""
    from pyautoattack import AutoAttack  # type: ignore[import-untyped]

    norm = {"linf": "Linf", "l2": "L2"}[attack.norm]
    made = AutoAttack(plain.exact(seed), norm=norm, eps=attack.eps, version="standard", seed=seed, device="cpu")
    found = made.run_standard_evaluation(torch.from_numpy(images), torch.from_numpy(labels), batch_size=len(images))
    return _array(found[0] if isinstance(found, tuple) else found)
