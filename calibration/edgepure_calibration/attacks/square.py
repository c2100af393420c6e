"""Square Attack (Andriushchenko et al. 2020): black-box, by random search, with nothing but the answers.

It needs no gradient and no PyTorch, so it runs against the deployed engine itself. Written from the paper (Linf). As in
its authors' own experiments, a square that would change nothing is drawn again: its query would be wasted, and with one
channel that is every second one. Two changes are for defences whose answers are random: an image is attacked to the end
of its budget even after a wrong answer, and its best version is asked again from time to time, because a lucky answer
would otherwise never be beaten.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgepure import SeededNoise
from edgepure.types import Float32

from .attack import Attack, AttackSeeds, AttackTarget, Labels, OnShare
from .protocol import AttackProtocol
from .settings import AttackSettings

#: Images [B, C, H, W] float32 in [0, 1] -> logits or log-probabilities [B, N]. One row is one query.
Answers = Callable[[Float32], NDArray[np.floating]]

#: Queries of 10,000 at which the share of changed pixels is halved (section 3.2), scaled to the budget.
HALVINGS = (10, 50, 200, 1000, 2000, 4000, 6000, 8000)

#: So often a square is drawn that changes something; where images are black or white few do.
DRAWS = 20


@dataclass(frozen=True)
class SquareResult:
    """``images``: ``[B, C, H, W]`` in [0, 1]. ``queries``: answers asked for each image. ``margins``: ``[B]``, of the
    best version, log-probability of the truth less that of the best other class (mean of its answers)."""

    images: Float32
    queries: int
    margins: NDArray[np.float64]


@dataclass(frozen=True)
class Square:
    """Untargeted Square Attack in the Linf ball of radius ``eps``.

    ``queries``: answers for each image, the first one included. ``share``: of the pixels in the first square (the
    paper's p). ``recheck``: the best version is asked again after so many tries; 0: never (deterministic defences).
    """

    eps: float
    queries: int = 1000
    share: float = 0.8
    recheck: int = 10
    seed: int = 0

    def __call__(
        self,
        answers: Answers,
        images: Float32,
        labels: NDArray[np.int64],
        on_query: Callable[[int], None] | None = None,
    ) -> SquareResult:
        """Attack ``answers``; ``on_query`` is told after each round how many queries each image has taken."""
        rng = np.random.default_rng(self.seed)
        count, channels, height, width = images.shape
        # The paper's start: vertical stripes.
        stripes = rng.choice(np.array([-self.eps, self.eps], np.float32), (count, channels, 1, width))
        best = _inside(images + stripes, images, self.eps)
        margins = _margins(answers(best), labels)
        asked, used, tries = np.ones(count), 1, 0
        while used < self.queries:
            if self.recheck and tries and tries % self.recheck == 0:
                margins = margins + (_margins(answers(best), labels) - margins) / (asked + 1)
                asked, tries = asked + 1, 0
            else:
                side = self.side(used, height, width)
                tried = np.stack([self._with_square(rng, x, x0, side) for x, x0 in zip(best, images, strict=True)])
                found = _margins(answers(tried), labels)
                better = found < margins
                best[better] = tried[better]
                margins, asked = np.where(better, found, margins), np.where(better, 1, asked)
                tries += 1
            used += 1
            if on_query is not None:
                on_query(used)
        return SquareResult(best, used, margins)

    def side(self, used: int, height: int, width: int) -> int:
        """Side of the square in pixels after ``used`` queries."""
        halvings = sum(used > 1 and used * 10_000 >= at * self.queries for at in HALVINGS)
        pixels = self.share * 0.5**halvings * height * width
        return min(max(round(float(np.sqrt(pixels))), 1), height, width)

    def _with_square(self, rng: np.random.Generator, x: Float32, x0: Float32, side: int) -> Float32:
        """One image with a square set to plus or minus eps in each channel, other than it was."""
        changed = x
        for _ in range(DRAWS):
            top = int(rng.integers(0, x.shape[1] - side + 1))
            left = int(rng.integers(0, x.shape[2] - side + 1))
            area = (slice(None), slice(top, top + side), slice(left, left + side))
            drawn = x.copy()
            drawn[area] = x0[area] + rng.choice(np.array([-self.eps, self.eps], np.float32), (x.shape[0], 1, 1))
            changed = _inside(drawn, x0, self.eps)
            if not np.array_equal(changed, x):
                break
        return changed


def _inside(moved: Float32, centre: Float32, eps: float) -> Float32:
    near = np.clip(moved, centre - np.float32(eps), centre + np.float32(eps))
    return np.clip(near, 0.0, 1.0).astype(np.float32)


def _margins(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    values = np.array(logits, np.float64)
    rows = np.arange(len(labels))
    truth = values[rows, labels]
    values[rows, labels] = -np.inf
    result: NDArray[np.float64] = truth - values.max(axis=1)
    return result


class SquareAttack(Attack):
    """Square on what the deployed engine answers, one purification a query."""

    name = "square"
    words = "black-box: Square Attack on the deployed engine's answers"
    asks_engine = True
    norms = ("linf",)

    def cost(self, target: AttackTarget, settings: AttackSettings) -> float:
        return float(settings.queries * target.calls)

    def protocol(self, target: AttackTarget, settings: AttackSettings, common: dict[str, Any]) -> AttackProtocol:
        return replace(
            super().protocol(target, settings, {**common, "twin": "nothing"}),
            gradient="none: log-probabilities of the answers",
            selection="smallest mean margin of its answers",
            queries=settings.queries,
            target=f"{common['judge']}, one purification an answer",
        )

    def run(
        self,
        target: AttackTarget,
        settings: AttackSettings,
        images: Float32,
        labels: Labels,
        seeds: AttackSeeds,
        on_share: OnShare,
    ) -> Float32:
        asked = 0

        def answers(batch: Float32) -> Float32:
            nonlocal asked
            ids = range(asked, asked + len(batch))
            asked += len(batch)
            results = target.purifier.run(batch, target.preset, votes=1, noise=SeededNoise(seeds.queries), ids=ids)
            return log_probabilities(np.stack([r.probabilities for r in results]))

        attack = Square(settings.eps, settings.queries, seed=seeds.base)
        return attack(answers, images, labels, lambda n: on_share(n / settings.queries)).images


def log_probabilities(probabilities: Float32) -> Float32:
    """Their logarithm, finite where a float32 probability is 0."""
    result: Float32 = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny)).astype(np.float32)
    return result
