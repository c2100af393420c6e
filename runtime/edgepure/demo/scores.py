"""Accuracies with their intervals, and the protocol that each of them was measured under."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ..errors import ConfigError
from ..purify.results import Result


@dataclass(frozen=True)
class Score:
    """How many of ``images`` were classified right.

    ``right`` counts the decisions (after votes). Where there were votes, ``single`` counts the images whose first
    purification alone was right, and ``worst`` those that every purification got right: the three decision rules that
    an evaluation of a randomised defence should name.
    """

    images: int
    right: int
    single: int | None = None
    worst: int | None = None

    @property
    def fraction(self) -> float:
        """Accuracy in 0..1."""
        return self.right / self.images

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Clopper-Pearson interval of the accuracy."""
        return clopper_pearson(self.right, self.images)

    @classmethod
    def of_labels(cls, decided: Sequence[int], labels: Sequence[int]) -> Score:
        """Score of a classifier without votes."""
        return cls(len(labels), sum(int(a) == int(b) for a, b in zip(decided, labels, strict=True)))

    @classmethod
    def of_results(cls, results: Sequence[Result], labels: Sequence[int]) -> Score:
        """Score of purified decisions."""
        pairs = list(zip(results, (int(n) for n in labels), strict=True))
        return cls(
            images=len(pairs),
            right=sum(r.label == label for r, label in pairs),
            single=sum(r.vote_labels[0] == label for r, label in pairs),
            worst=sum(all(v == label for v in r.vote_labels) for r, label in pairs),
        )


def clopper_pearson(right: int, images: int, confidence: float = 0.95) -> tuple[float, float]:
    """The exact (Clopper & Pearson 1934) confidence interval of a binomial proportion, found by bisection.

    Raises:
        ConfigError: not 0 <= right <= images, no images, or a confidence outside (0, 1).
    """
    if not (0 <= right <= images and images > 0 and 0.0 < confidence < 1.0):
        raise ConfigError(f"no interval for {right} of {images} at confidence {confidence}")
    tail = (1.0 - confidence) / 2.0
    low = 0.0 if right == 0 else _bisect(lambda p: _at_least(right, images, p) < tail)
    high = 1.0 if right == images else _bisect(lambda p: 1.0 - _at_least(right + 1, images, p) > tail)
    return low, high


def _at_least(k: int, n: int, p: float) -> float:
    """P(X >= k) for X ~ Binomial(n, p), 0 < p < 1."""
    log_p, log_q = math.log(p), math.log1p(-p)
    total = math.lgamma(n + 1)
    terms = (
        math.exp(total - math.lgamma(i + 1) - math.lgamma(n - i + 1) + i * log_p + (n - i) * log_q)
        for i in range(k, n + 1)
    )
    return min(1.0, math.fsum(terms))


def _bisect(below: Callable[[float], bool]) -> float:
    """The p in (0, 1) where ``below`` turns from true to false, to 1e-12."""
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if below(middle) else (low, middle)
    return 0.5 * (low + high)


@dataclass(frozen=True)
class Protocol:
    """How a column of accuracies was measured: everything that has to be known to repeat or doubt it.

    Attributes:
        images: which images, in words, with their number.
        decision: the rule that turns purifications into one answer.
        seeds: of what was drawn: ``noise`` of the purifications, ``attack``, ``subset`` of the images.
        attack, norm, eps, steps, step_size, random_start, eot: the attack; None where there is none.
        gradient: which gradient the attack follows, and where it is cut.
        target: what was attacked.
        note: anything else, one sentence.
    """

    images: str
    decision: str
    seeds: Mapping[str, int] = field(default_factory=dict)
    attack: str | None = None
    norm: str | None = None
    eps: float | None = None
    steps: int | None = None
    step_size: float | None = None
    random_start: bool | None = None
    eot: int | None = None
    gradient: str | None = None
    target: str | None = None
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    def sentence(self) -> str:
        """The protocol in one line, for a footnote."""
        parts = []
        if self.attack:
            size = f"eps {self.eps:g}, {self.steps} steps of {self.step_size:.3g}"
            parts.append(f"{self.attack}, {self.norm}, {size}{', random start' if self.random_start else ''}")
        if self.eot:
            parts.append(f"EOT {self.eot}")
        if self.target:
            parts.append(f"on {self.target}")
        if self.gradient:
            parts.append(f"gradient: {self.gradient}")
        parts += [self.images, self.decision]
        if self.seeds:
            parts.append("seeds: " + ", ".join(f"{what} {seed}" for what, seed in self.seeds.items()))
        return "; ".join(parts) + "." + (f" {self.note}" if self.note else "")
