"""From the names of attacks to what is run: the attack, its gradient and its cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgepure import Preset, Purifier, SeededNoise
from edgepure.errors import ConfigError
from edgepure_export.graphs.mask_cut import MaskGradient
from edgepure_export.twin.reference import TorchReference

from ..attacks import APGD, PGD, Logits, LowFrequency, Square, select_worst
from ..attacks.defence import Defence, IdentityBackward, NormPenalty, surrogate
from .draws import log
from .protocol import digest
from .settings import ATTACKS, THROUGH_THE_DEFENCE, Settings

Float32 = NDArray[np.float32]
Labels = NDArray[np.int64]
#: Told the share of an attack that is done.
OnShare = Callable[[float], None]

#: A backward pass costs about two forward passes, and one more where rows are computed again.
GRADIENT_COST = 4.0


@dataclass(frozen=True)
class Target:
    """What is attacked: a preset on its engine, and its differentiable twin."""

    name: str
    preset: Preset
    purifier: Purifier
    twin: TorchReference
    device: str = "cpu"

    @property
    def calls(self) -> int:
        """UNet calls of one purification at its full noise level, with its probe."""
        probe = self.purifier.planner.probe(self.preset)
        return self.purifier.planner.plan(self.preset).unet_calls + (probe.unet_calls if probe else 0)


@dataclass(frozen=True)
class Line:
    """One attack on one preset: a line of the table."""

    attack: str
    mask_gradient: MaskGradient = "none"


def lines(target: Target, settings: Settings) -> list[Line]:
    """The attacks that apply to a preset, in the order of `ATTACKS`.

    Raises:
        ConfigError: an attack that was asked for cannot be run on this bundle.
    """
    classes = len(target.purifier.classes)
    if classes < 3 and {"apgd", "apgd-dlr"} & set(settings.attacks):
        raise ConfigError(
            f"the DLR loss of apgd needs at least three classes, this bundle has {classes}; ask for apgd-ce instead"
        )
    found: list[Line] = []
    for name in (n for n in ATTACKS if n in settings.attacks):
        if name == "pgd-small-norm" and target.preset.ssni is None:
            continue
        found.append(Line(name))
        if name in THROUGH_THE_DEFENCE and target.preset.mask is not None and settings.mask_gradient != "none":
            found.append(Line(name, settings.mask_gradient))
    return found


def cost(line: Line, target: Target, settings: Settings) -> float:
    """UNet calls for one image and one seed, gradients counted as several: for progress and for the estimate."""
    looks = settings.restarts * settings.steps * settings.eot
    selecting = settings.selection * settings.restarts * target.calls if settings.restarts > 1 else 0.0
    if line.attack == "transfer":
        return 0.02 * settings.restarts * settings.steps
    if line.attack == "square":
        return float(settings.queries * target.calls)
    if line.attack == "bpda":
        return looks * target.calls + selecting
    if line.attack == "surrogate":
        return GRADIENT_COST * looks * settings.surrogate_calls + selecting
    if line.attack == "apgd":
        return 2 * GRADIENT_COST * looks * target.calls + 2 * settings.selection * settings.restarts * target.calls
    return GRADIENT_COST * looks * target.calls + selecting


def attack(
    line: Line, target: Target, settings: Settings, images: Float32, labels: Labels, seed: int, on_share: OnShare
) -> Float32:
    """Run one attack on a batch ``[B, C, H, W]`` in [0, 1]; everything it draws follows from ``seed``."""
    if line.attack == "square":
        return _square(target, settings, images, labels, seed, on_share)
    x, y = (torch.from_numpy(a).to(target.device) for a in (images, labels))
    noise = derived_seed(seed, "attacker's noise")
    logits: Logits
    if line.attack == "transfer":
        logits = target.twin.logits
    elif line.attack == "bpda":
        logits = IdentityBackward(target.twin, target.preset, noise)
    elif line.attack == "surrogate":
        short = surrogate(target.preset, target.purifier.planner.plan(target.preset), settings.surrogate_calls)
        logits = Defence(target.twin, short, noise)
    else:
        logits = Defence(target.twin, target.preset, noise, line.mask_gradient)
    made = [
        candidate
        for restart in range(settings.restarts)
        for candidate in _methods(line, target, settings, x, derived_seed(seed, f"restart {restart}"))
    ]
    total, done = settings.steps * len(made), 0
    results: list[Tensor] = []
    for one in made:
        before = done
        results.append(one(logits, x, y, lambda step, before=before: on_share((before + step) / total)))
        done = before + settings.steps
    if len(results) == 1:
        return np.asarray(results[0].cpu().numpy(), np.float32)
    judge = Defence(target.twin, target.preset, derived_seed(seed, "selection"))
    plain = target.twin.logits if line.attack == "transfer" else judge
    chosen, _ = select_worst(plain, results, y, 1 if line.attack == "transfer" else settings.selection, settings.batch)
    return np.asarray(chosen.cpu().numpy(), np.float32)


def _methods(line: Line, target: Target, settings: Settings, images: Tensor, seed: int) -> list[Any]:
    common: dict[str, Any] = {
        "steps": settings.steps, "eot": 1 if line.attack == "transfer" else settings.eot, "seed": seed,
        "batch": settings.batch, "copies": settings.copies,
    }  # fmt: skip
    ball: dict[str, Any] = {"eps": settings.eps, "norm": settings.norm}
    if line.attack == "low-frequency":
        return [LowFrequency(eps=settings.field_size, grid=settings.grid, **common)]
    if line.attack.startswith("apgd"):
        losses = ("ce", "dlr") if line.attack == "apgd" else (line.attack.removeprefix("apgd-"),)
        return [APGD(loss=loss, **ball, **common) for loss in losses]  # type: ignore[arg-type]
    if line.attack == "pgd-small-norm":
        clean = NormPenalty(target.twin, target.preset, 1.0, 1.0, seed)
        with torch.no_grad():
            reference = float(clean.norms(images).mean())
        penalty = NormPenalty(target.twin, target.preset, settings.norm_penalty, reference, seed)
        return [PGD(penalty=penalty, **ball, **common)]
    return [PGD(**ball, **common)]


def _square(
    target: Target, settings: Settings, images: Float32, labels: Labels, seed: int, on_share: OnShare
) -> Float32:
    asked = 0
    noise = derived_seed(seed, "noise of the answers")

    def answers(batch: Float32) -> Float32:
        nonlocal asked
        ids = range(asked, asked + len(batch))
        asked += len(batch)
        results = target.purifier.run(batch, target.preset, votes=1, noise=SeededNoise(noise), ids=ids)
        return log(np.stack([r.probabilities for r in results]))

    found = Square(settings.eps, settings.queries, seed=seed)
    return found(answers, images, labels, lambda n: on_share(n / settings.queries)).images


def derived_seed(seed: int, *parts: object, bits: int = 31) -> int:
    """A seed of ``bits`` bits that follows from another and from what it is for."""
    return int(digest({"seed": seed, "for": [str(p) for p in parts]})[:16], 16) & ((1 << bits) - 1)
