"""Accuracies: how many decisions were right, by the rule that decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..intervals import clopper_pearson
from .results import Result


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
