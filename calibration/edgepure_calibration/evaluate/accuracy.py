"""A number that cannot be without its protocol.

"Robust accuracy" means nothing unless one knows which attack, with which gradient, against which decision. So the
number and its protocol are one object here: it cannot be made without an `AttackProtocol`, and its text names it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from edgepure.errors import ConfigError
from edgepure.intervals import clopper_pearson

from ..attacks.protocol import DEFENCE, AttackProtocol


@dataclass(frozen=True)
class Rule:
    """How answers become a decision.

    ``single``: one purification, one answer. ``worst``: right only if each of ``count`` answers is (an attacker may
    send his image again). ``majority``: the vote of ``count`` purifications.
    """

    kind: str
    count: int = 1

    def __post_init__(self) -> None:
        if self.kind not in ("single", "worst", "majority") or self.count < 1:
            raise ConfigError(
                f"decision rule {self.kind!r} of {self.count}: choose single, worst of N or majority of K",
                code="E-accuracy-rule",
            )

    def __str__(self) -> str:
        return "single purification" if self.kind == "single" else f"{self.kind} of {self.count}"


@dataclass(frozen=True)
class Accuracy:
    """How many images were decided right, under a protocol and a rule. Its text always says both.

    Attributes:
        protocol: see `AttackProtocol`.
        rule: see `Rule`.
        right: images decided right, for each seed of the protocol.
        images: their number.
    """

    protocol: AttackProtocol
    rule: Rule
    right: tuple[int, ...]
    images: int

    def __post_init__(self) -> None:
        if not isinstance(self.protocol, AttackProtocol) or not isinstance(self.rule, Rule):
            raise TypeError(
                "an accuracy needs its AttackProtocol and its Rule; there is no robust accuracy without them"
            )
        if len(self.right) != len(self.protocol.seeds):
            raise ConfigError(
                f"{len(self.right)} counts for {len(self.protocol.seeds)} seeds; expected one each",
                code="E-accuracy-seeds",
            )
        if self.images < 1 or not all(0 <= n <= self.images for n in self.right):
            raise ConfigError(
                f"{self.right} right of {self.images} images is no share; "
                "expected one count for each seed, from 0 to that number",
                code="E-accuracy-share",
            )

    @property
    def fraction(self) -> float:
        """Share decided right, the mean over the seeds, 0..1."""
        return sum(self.right) / (len(self.right) * self.images)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Clopper-Pearson interval for ``images`` images at the mean over the seeds.

        The seeds attack the same images, so they do not count as more images.
        """
        return clopper_pearson(round(self.fraction * self.images), self.images)

    @property
    def spread(self) -> tuple[float, float]:
        """Smallest and largest share among the seeds."""
        return min(self.right) / self.images, max(self.right) / self.images

    def cell(self, notes: Footnotes) -> str:
        """For a table: share, interval, and the number of the protocol's footnote."""
        low, high = self.interval
        return f"{100 * self.fraction:.1f} % ({100 * low:.1f} to {100 * high:.1f}) [{notes.cite(self.protocol)}]"

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"{100 * self.fraction:.1f} % ({100 * low:.1f} to {100 * high:.1f}), {self.rule}, {self.images} images; "
            f"{self.protocol.sentence()}"
        )

    def __format__(self, spec: str) -> str:
        if spec:
            raise TypeError("an accuracy has no bare number to format; print it whole, or use cell() with footnotes")
        return str(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, the protocol inside."""
        return {
            "rule": self.rule.kind,
            "count": self.rule.count,
            "accuracy": round(self.fraction, 6),
            "interval95": [round(v, 6) for v in self.interval],
            "by_seed": [round(n / self.images, 6) for n in self.right],
            "right": list(self.right),
            "images": self.images,
            "protocol": self.protocol.to_dict(),
        }


def accuracy_of(data: Mapping[str, Any]) -> Accuracy:
    """The reverse of `Accuracy.to_dict`. Raises KeyError, TypeError or ConfigError."""
    return Accuracy(
        protocol_of(data["protocol"]), Rule(data["rule"], data["count"]), tuple(data["right"]), data["images"]
    )


def protocol_of(data: Mapping[str, Any]) -> AttackProtocol:
    """The reverse of `AttackProtocol.to_dict`. Raises TypeError or ConfigError."""
    return AttackProtocol(**{**data, "seeds": tuple(data["seeds"])})


class Footnotes:
    """The protocols of an evaluation, numbered from 1: one numbering for terminal, page, card and JSON.

    Protocols that differ in nothing but the preset share a number: tables name the preset beside their numbers.

    Args:
        protocols: in the order of their numbers; others that are cited get the next ones.
        numbered: these have the first numbers; they are listed only if they are cited.
    """

    def __init__(self, protocols: Iterable[AttackProtocol] = (), numbered: Iterable[AttackProtocol] = ()) -> None:
        self._parts: list[list[str]] = []
        self._cited: set[int] = set()
        for protocol in numbered:
            self._number(protocol)
        for protocol in protocols:
            self.cite(protocol)

    def cite(self, protocol: AttackProtocol) -> int:
        """The number of a protocol."""
        number = self._number(protocol)
        self._cited.add(number)
        return number

    def _number(self, protocol: AttackProtocol) -> int:
        parts = [part for part in protocol.parts() if not part.startswith(DEFENCE)]
        if parts not in self._parts:
            self._parts.append(parts)
        return self._parts.index(parts) + 1

    def lines(self) -> list[str]:
        """``[1] ...`` for each protocol; first, if there are several, what is the same in all of them."""
        cited = {number: self._parts[number - 1] for number in sorted(self._cited)}
        every = list(cited.values())
        same = [part for part in every[0] if all(part in others for others in every)] if len(every) > 1 else []
        lines = [f"[all] {'; '.join(same)}"] if same else []
        for number, parts in cited.items():
            lines.append(f"[{number}] {'; '.join(part for part in parts if part not in same)}")
        return lines
