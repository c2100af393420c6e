"""What has to be known of an attack to repeat or to doubt a number that was measured under it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from edgepure.errors import ConfigError

from ..digest import digest

#: How the statement about the preset begins, see `AttackProtocol.parts`.
DEFENCE = "defence: "


@dataclass(frozen=True, kw_only=True)
class AttackProtocol:
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

    Raises:
        ConfigError: something is missing without which nobody can repeat a number.
    """

    attack: str
    gradient: str
    bounded: str
    norm: str | None = None
    eps: float | None = None
    steps: int | None = None
    eot: int | None = None
    step_size: str | None = None
    restarts: int | None = None
    mask_gradient: str | None = None
    norm_penalty: float = 0.0
    selection: str
    queries: int | None = None
    surrogate: bool = False
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
        for name in ("attack", "target", "judge", "noise", "images", "data_sha256", "seeds"):
            if not getattr(self, name):
                raise ConfigError(
                    f"a protocol needs its {name!r}: without it nobody can repeat the number", code="E-protocol"
                )

    @property
    def key(self) -> str:
        """Hash of all of it, hexadecimal: equal protocols have equal keys."""
        return digest(self.to_dict())

    @property
    def title(self) -> str:
        """The attack in a few words, for tables. A surrogate is marked in every one of them."""
        if self.attack == "none":
            return "clean images"
        if self.attack == "union":
            return "all of these"
        usual = "apgd (AutoAttack rand)" if self.attack == "apgd" else self.attack
        soft = f", mask gradient {self.mask_gradient}" if self.mask_gradient not in (None, "none") else ""
        return f"{usual}{soft}" + (" (surrogate gradient)" if self.surrogate else "")

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
        if self.eot is not None:
            parts.append(f"EOT {self.eot}")
        if self.restarts is not None:
            parts.append(f"restarts {self.restarts}")
        if self.queries is not None:
            parts.append(f"{self.queries} queries an image")
        if self.norm_penalty:
            parts.append(f"score-norm penalty {self.norm_penalty:g}")
        if self.attack != "none":
            parts += [
                f"bounded: {self.bounded}",
                f"gradient: {self.gradient}",
                f"selection: {self.selection}",
                f"target: {self.target}",
                f"gradients by {self.twin}",
            ]
        return [
            *parts,
            f"judged by {self.judge}",
            f"noise: {self.noise}",
            f"{DEFENCE}{self.preset}",
            self.images,
            f"data {self.data_sha256[:12]}",
            f"seeds {', '.join(map(str, self.seeds))}",
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**asdict(self), "seeds": list(self.seeds)}
