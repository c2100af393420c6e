"""The protocol that an accuracy was measured under."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


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
