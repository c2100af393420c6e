"""One point of the search: a preset and the precision of the graphs that run it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from edgepure import Preset
from edgepure.methods.planner import Planner

from ..digest import digest

#: A score norm far above any that occurs: SSNI then gives its strongest noise.
_HUGE_NORM = 1e9


@dataclass(frozen=True)
class Candidate:
    """A preset, and the precision of the graphs that run it."""

    preset: Preset
    precision: str = "fp32"

    @cached_property
    def key(self) -> str:
        """Equal for candidates that decide equally: hash of everything but the words."""
        data = self.to_dict()
        for name in ("description", "precision"):
            data["preset"].pop(name)
        return digest(data)[:16]

    def to_dict(self) -> dict[str, Any]:
        return {"preset": self.preset.model_dump(mode="json"), "precision": self.precision}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Candidate:
        return cls(Preset.parse(data["preset"]), data["precision"])

    def summary(self) -> str:
        """The preset in a few words: method, noise levels, steps, what is around it."""
        method = self.preset.method.model_dump(mode="json")
        skipped = {"method", "respacing", "variance", "clip", "elements", "ptb", "target", "sde_label", "sde_step"}
        parts = [f"{key} {_short(value)}" for key, value in method.items() if key not in skipped and value is not None]
        words = [f"{method['method']}: {', '.join(parts)}"]
        if self.preset.mask is not None:
            mask = self.preset.mask
            words.append(f"mask {mask.rule} " + (f"area {mask.area:g}" if mask.area else f"tau {mask.threshold:g}"))
        if self.preset.ssni is not None:
            words.append(f"SSNI {self.preset.ssni.reweighting}, at least {self.preset.ssni.minimum:g} of the noise")
        if self.preset.votes.count > 1:
            words.append(f"{self.preset.votes.rule} of {self.preset.votes.count} votes")
        if self.precision != "fp32":
            words.append(self.precision)
        return "; ".join(words)


def calls_per_decision(planner: Planner, preset: Preset) -> int:
    """UNet calls of one decision, votes and probe included; with SSNI of the image that needs most."""
    probe = planner.probe(preset)
    rows = planner.plan(preset, None if preset.ssni is None else _HUGE_NORM).unet_calls
    return (0 if probe is None else probe.unet_calls) + preset.votes.count * rows


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
