"""Presets with a certificate: what may be chosen, and how many images they certify."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edgepure import Preset, Purifier
from edgepure.errors import ConfigError
from edgepure.images.dataset import LabelledImages
from edgepure.methods import Planner
from edgepure.methods.choices import Suggest
from edgepure.purify.certificate import Certificate, CertifySettings
from edgepure.purify.certify import Certifier
from edgepure.purify.scores import Score
from edgepure.rows.noise import SeededNoise

from .candidate import Candidate
from .points import Point

#: The votes of the presets that are written: they end when the answer is settled.
VOTES = {"sequential": {"alpha": 0.05, "max": 20}}
#: Noise is searched up to so many times the radius: beyond it, images are lost and no radius is won.
MOST_NOISE = 4.0
SHARES = (0.1, 0.5)


class CertifiedSpace:
    """The certified presets of a bundle: denoised smoothing, and with a mask graph the split of two noises.

    Args:
        planner: of the bundle.
        masks: it has a mask graph.
        radius: L2, that is to be certified.
        calls: UNet calls of one answer, at most.
        counted: how a preset is counted; so many answers prove no larger radius than a few times its noise.

    Raises:
        ConfigError: no noise of the schedule could prove this radius with so many answers.
    """

    def __init__(self, planner: Planner, masks: bool, radius: float, calls: int, counted: CertifySettings) -> None:
        noise = planner.schedule.alphas_cumprod
        least, most = (0.5 * float((1.0 - a) / a) ** 0.5 for a in (noise[0], noise[-1]))
        least, strongest = 1.02 * least, min(0.98 * most, 10.0)
        if counted.reach(strongest) < radius:
            raise ConfigError(
                f"no noise proves the radius {radius:g} with {counted.n} answers at alpha {counted.alpha:g}: the "
                f"strongest, sigma {strongest:.3g}, reaches {counted.reach(strongest):.3g}; ask for a smaller radius, "
                "or count more (--n)",
                code="E-tune-certified-radius",
            )
        low, high = math.log(least), math.log(strongest)
        for _ in range(30):
            middle = 0.5 * (low + high)
            low, high = (low, middle) if counted.reach(math.exp(middle)) >= radius else (middle, high)
        self.low = min(1.005 * math.exp(high), strongest)  # so that rounding makes no noise that proves nothing
        self.high = min(max(MOST_NOISE * radius, 2.0 * self.low), strongest)
        self.calls, self._most = calls, 0.98 * most
        self.methods = ("smooth", "split") if masks and calls > 1 else ("smooth",)

    def starts(self) -> list[dict[str, Any]]:
        """Some parameters of the first trials."""
        middle = (self.low * self.high) ** 0.5
        return [{"method": name, "sigma": sigma} for sigma in (middle, 1.5 * self.low) for name in self.methods]

    def candidate(self, trial: Suggest) -> Candidate:
        """A preset that compiles on this bundle, has a certificate and stays within the budget."""
        method = trial.suggest_categorical("method", self.methods)
        sigma = float(f"{trial.suggest_float('sigma', self.low, self.high, log=True):.3g}")
        data: dict[str, Any] = {"method": {"method": method, "sigma": sigma}, "votes": VOTES}
        if method == "split":
            least = max(SHARES[0], (sigma / self._most) ** 2)  # its first copy has the noise sigma / sqrt(share)
            share = max(round(trial.suggest_float("split.share", *SHARES), 2), round(least + 0.005, 2))
            strong = trial.suggest_int("split.strong_steps", 1, self.calls - 1, log=True)
            weak = trial.suggest_int("split.weak_steps", 1, self.calls - strong, log=True)
            data["method"] |= {"share": share, "strong_steps": strong, "weak_steps": weak}
            data["mask"] = {"area": round(trial.suggest_float("mask.area", 0.1, 0.9, step=0.1), 1)}
        else:
            data["method"]["steps"] = trial.suggest_int("smooth.steps", 1, self.calls, log=True)
        return Candidate(Preset.parse(data))


@dataclass(frozen=True)
class CertifiedMeasuring:
    """Counts certified images of one split with the deployed graphs.

    Attributes:
        purifier: the graphs.
        data: labelled images.
        counted: how much is counted; its radius ends the counting of an image.
        seed: of the noise.
    """

    purifier: Purifier
    data: LabelledImages
    counted: CertifySettings
    seed: int

    def point(self, candidate: Candidate, number: int = -1, on_share: Callable[[float], None] | None = None) -> Point:
        """``clean``: answered right with some certificate; ``attacked``: right and certified up to the radius."""
        certifier = Certifier(self.purifier.graphs, candidate.preset, self.counted)
        found: dict[int, Certificate] = {}

        def done(index: int, certificate: Certificate) -> None:
            found[index] = certificate
            if on_share is not None:
                on_share(len(found) / len(self.data))

        with self.purifier.turns.alone():
            certifier.run(self.data.images, SeededNoise(self.seed), self.data.names, done)
        radius, labels = self.counted.radius, self.data.labels
        assert radius is not None and labels is not None
        right = [found[i].label == int(labels[i]) for i in range(len(self.data))]
        certified = sum(right[i] and found[i].radius >= radius for i in range(len(self.data)))
        calls, images = self.purifier.plan(candidate.preset).unet_calls, len(self.data)
        return Point(candidate, calls, None, Score(images, sum(right)), Score(images, certified), number=number)
