"""What the deployed engine says of images, asked several times, and what the decision rules make of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgepure import Preset, Purifier, SeededNoise
from edgepure.purify.results import decide
from edgepure.rows.noise import NoiseSource
from edgepure.types import Float32

from ..attacks.square import log_probabilities
from .accuracy import Rule

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Draws:
    """Answers of the deployed engine: each is a request of its own, with its own noise.

    Attributes:
        log_probabilities: ``[D, N, classes]`` float32.
        labels: ``[N]`` int64, the truth.
        unet_calls: mean over all answers.
    """

    log_probabilities: Float32
    labels: Labels
    unet_calls: float

    @property
    def answers(self) -> Labels:
        """``[D, N]`` the class of each answer."""
        return np.asarray(self.log_probabilities.argmax(axis=2), np.int64)

    def right(self, rule: Rule) -> NDArray[np.bool_]:
        """Which images ``[N]`` are decided right; all rules look at the same answers, from the first on."""
        hits = self.answers[: rule.count] == self.labels
        if len(hits) < rule.count:
            raise ValueError(f"{rule} needs {rule.count} answers, there are {len(hits)}")
        if rule.kind != "majority":
            return np.asarray(hits.all(axis=0))
        votes = self.log_probabilities[: rule.count]
        decided = [decide(votes[:, i], "majority")[0] for i in range(votes.shape[1])]
        return np.asarray(np.array(decided) == self.labels)

    def resubmission(self) -> list[float]:
        """Share of images read wrong at least once in q answers, for q = 1 .. D: the attacker's success if he sends the
        same image q times. Averaged over all choices of q of the D answers (hypergeometric), so no order matters."""
        count = len(self.answers)
        wrong = (self.answers != self.labels).sum(axis=0)
        curve = []
        for q in range(1, count + 1):
            total = math.comb(count, q)
            curve.append(float(np.mean([1.0 - math.comb(count - int(w), q) / total for w in wrong])))
        return curve


def draw(
    purifier: Purifier,
    preset: Preset,
    images: Float32,
    count: int,
    noise: int | Callable[[int], NoiseSource],
    *,
    votes: int = 1,
    on_draw: Callable[[int], None] | None = None,
) -> tuple[Float32, float]:
    """Ask the engine ``count`` times for each of ``images`` ``[N, C, H, W]``: log-probabilities ``[count, N, classes]``
    and the mean UNet calls of an answer.

    Args:
        noise: a seed, from which every answer gets noise of its own; or a function of the answer's number.
        votes: purifications of one answer.
        on_draw: called after each round with their number.
    """
    found: list[Float32] = []
    calls = 0.0
    for number in range(count):
        if callable(noise):
            source, ids = noise(number), range(len(images))
        else:
            source, ids = SeededNoise(noise), range(number * len(images), (number + 1) * len(images))
        results = purifier.run(images, preset, votes=votes, noise=source, ids=ids)
        found.append(log_probabilities(np.stack([r.probabilities for r in results])))
        calls += float(np.mean([r.unet_calls for r in results])) / count
        if on_draw is not None:
            on_draw(number + 1)
    return np.stack(found), calls


def rules(votes: int, worst: int) -> Sequence[Rule]:
    """The three rules that are always reported."""
    return Rule("single"), Rule("worst", worst), Rule("majority", votes)
