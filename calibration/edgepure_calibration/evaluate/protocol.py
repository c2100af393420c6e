"""A protocol, and numbers that cannot be without one.

"Robust accuracy" means nothing unless one knows which attack, with which gradient, against which decision. So the
number and its protocol are one object here: it cannot be made without a `Protocol`, and its text names it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from edgepure.errors import ConfigError
from edgepure.intervals import clopper_pearson

_DEFENCE = "defence: "


@dataclass(frozen=True)
class Protocol:
    """Everything that has to be known to repeat or to doubt an accuracy.

    Attributes:
        attack: its name; ``none`` for clean images, ``union`` for several at once.
        gradient: what the attack follows, and where it is cut.
        bounded: what the attack may change, in words.
        norm, eps: the ball; None for attacks without one.
        steps, eot, step_size, restarts: of the attack; None where it has no such thing. ``step_size`` in words.
        mask_gradient: ``none``, ``soft`` or ``straight_through``; None for presets without a mask.
        norm_penalty: weight of the score norm in the attacker's loss; 0 for none.
        selection: which of the attacker's images is the result.
        queries: answers that a black-box attack asks for each image.
        surrogate: the gradient is not that of what is deployed, so the number flatters.
        target: what was attacked.
        twin: what the gradients were computed with.
        judge: what answered the attacked images: engine, precision.
        noise: whose noise, and who knows it.
        preset, preset_sha256: the defence, by name and content.
        bundle_sha256: of the graphs and weights.
        images: how many, and how they were drawn.
        data_sha256: of those images and their labels.
        seeds: of the attack and of the attacker's own noise, one run each.
    """

    attack: str
    gradient: str
    bounded: str
    norm: str | None
    eps: float | None
    steps: int | None
    eot: int | None
    step_size: str | None
    restarts: int | None
    mask_gradient: str | None
    norm_penalty: float
    selection: str
    queries: int | None
    surrogate: bool
    target: str
    twin: str
    judge: str
    noise: str
    preset: str
    preset_sha256: str
    bundle_sha256: str
    images: str
    data_sha256: str
    seeds: tuple[int, ...]

    def __post_init__(self) -> None:
        for name in ("attack", "target", "judge", "noise", "images", "data_sha256"):
            if not getattr(self, name):
                raise ConfigError(f"a protocol needs its {name!r}: without it nobody can repeat the number")
        if not self.seeds:
            raise ConfigError("a protocol needs its seeds: without them nobody can repeat the number")

    @property
    def key(self) -> str:
        """Hash of all of it, hexadecimal: equal protocols have equal keys."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()

    @property
    def title(self) -> str:
        """The attack in a few words, for tables. A surrogate is marked in every one of them."""
        extra = [self.mask_gradient] if self.mask_gradient not in (None, "none") else []
        if self.attack == "none":
            return "clean images"
        if self.attack == "union":
            return "all of these"
        usual = "apgd (AutoAttack rand)" if self.attack == "apgd" else self.attack
        name = usual + (f", mask gradient {extra[0]}" if extra else "")
        return f"{name} (surrogate gradient)" if self.surrogate else name

    def sentence(self) -> str:
        """The protocol in one line."""
        return "; ".join(self.parts())

    def parts(self) -> list[str]:
        """The same, statement by statement."""
        parts = [self.title]
        if self.norm is not None and self.eps is not None:
            parts.append(f"{self.norm} eps {self.eps:.4g}")
        if self.steps is not None:
            parts.append(f"{self.steps} steps" + (f" ({self.step_size})" if self.step_size else ""))
        for value, words in ((self.eot, "EOT"), (self.restarts, "restarts"), (self.queries, "queries an image")):
            if value is not None:
                parts.append(f"{words} {value}" if words in ("EOT", "restarts") else f"{value} {words}")
        if self.norm_penalty:
            parts.append(f"score-norm penalty {self.norm_penalty:g}")
        if self.attack != "none":
            parts += [f"bounded: {self.bounded}", f"gradient: {self.gradient}", f"selection: {self.selection}",
                      f"target: {self.target}", f"gradients by {self.twin}"]  # fmt: skip
        parts += [f"judged by {self.judge}", f"noise: {self.noise}", f"{_DEFENCE}{self.preset}", self.images,
                  f"data {self.data_sha256[:12]}", f"seeds {', '.join(map(str, self.seeds))}"]  # fmt: skip
        return parts

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**asdict(self), "seeds": list(self.seeds)}


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
                f"decision rule {self.kind!r} of {self.count}: choose single, worst of N or majority of K"
            )

    def __str__(self) -> str:
        return "single purification" if self.kind == "single" else f"{self.kind} of {self.count}"


@dataclass(frozen=True)
class Accuracy:
    """How many images were decided right, under a protocol and a rule. Its text always says both.

    Attributes:
        protocol: see `Protocol`.
        rule: see `Rule`.
        right: images decided right, for each seed of the protocol.
        images: their number.
    """

    protocol: Protocol
    rule: Rule
    right: tuple[int, ...]
    images: int

    def __post_init__(self) -> None:
        if not isinstance(self.protocol, Protocol) or not isinstance(self.rule, Rule):
            raise TypeError("an accuracy needs its Protocol and its Rule; there is no robust accuracy without them")
        if len(self.right) != len(self.protocol.seeds):
            raise ConfigError(f"{len(self.right)} counts for {len(self.protocol.seeds)} seeds; expected one each")
        if self.images < 1 or not all(0 <= n <= self.images for n in self.right):
            raise ConfigError(f"{self.right} right of {self.images} images is no share")

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


@dataclass
class Footnotes:
    """The protocols that a page cites, numbered from 1 in the order in which they are first cited.

    Protocols that differ in nothing but the preset share a number: tables name the preset beside their numbers.
    """

    _cited: list[list[str]] = field(default_factory=list)

    def cite(self, protocol: Protocol) -> int:
        """The number of a protocol."""
        parts = [part for part in protocol.parts() if not part.startswith(_DEFENCE)]
        if parts not in self._cited:
            self._cited.append(parts)
        return self._cited.index(parts) + 1

    def lines(self) -> list[str]:
        """``[1] ...`` for each that was cited; first, if there are several, what is the same in all of them."""
        every = self._cited
        same = [part for part in every[0] if all(part in others for others in every)] if len(every) > 1 else []
        lines = [f"[all] {'; '.join(same)}"] if same else []
        for number, parts in enumerate(every, start=1):
            lines.append(f"[{number}] {'; '.join(part for part in parts if part not in same)}")
        return lines


def digest(data: Mapping[str, Any]) -> str:
    """SHA-256 of plain data, hexadecimal."""
    return hashlib.sha256(json.dumps(data, sort_keys=True, default=str).encode()).hexdigest()
