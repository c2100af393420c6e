"""What resampling costs: none, the single-step jump of "Divide and Conquer", and RePaint's repetitions.

Everything is measured on the deployed engine: UNet calls, time, clean accuracy; and, for white-box evaluation, the
memory that a gradient through the whole purification would keep.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from edgepure import HeterogeneousSpec, Preset, Purifier, SeededNoise
from edgepure.errors import ConfigError
from edgepure.images.dataset import LabelledImages
from edgepure_export.twin.reference import TorchReference

from .memory import saved_bytes


@dataclass(frozen=True)
class Resampling:
    """One way to resample.

    Attributes:
        name: ``none``, ``single (paper)``, ``single (fused)``, ``multi``.
        unet_calls: of one purification, counted by the engine.
        extra: of them, those that the same grid needs not without resampling.
        ms: milliseconds of one purification among many, median of the rounds.
        gradient_bytes: what autograd keeps for the gradient of one purification of one image, nothing recomputed.
        right, images: single purifications of clean images that are decided right.
    """

    name: str
    unet_calls: float
    extra: float
    ms: float
    gradient_bytes: int
    right: int
    images: int

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "name": self.name,
            "unet_calls": self.unet_calls,
            "extra_unet_calls": self.extra,
            "ms_per_purification": round(self.ms, 4),
            "gradient_bytes_per_image": self.gradient_bytes,
            "clean_right": self.right,
            "images": self.images,
        }


@dataclass(frozen=True)
class Ablation:
    """The variants, and what the single-step jump saves against ``repetitions`` repetitions a step."""

    preset: str
    repetitions: int
    variants: tuple[Resampling, ...]

    def variant(self, name: str) -> Resampling:
        """One of them."""
        return next(v for v in self.variants if v.name == name)

    def saved(self, name: str) -> dict[str, float]:
        """Shares that a variant saves against ``multi``: of all calls, of the extra calls, of time, of memory."""
        mine, multi = self.variant(name), self.variant("multi")
        return {
            "unet_calls": 1.0 - mine.unet_calls / multi.unet_calls,
            "extra_unet_calls": 1.0 - mine.extra / multi.extra,
            "time": 1.0 - mine.ms / multi.ms,
            "gradient_memory": 1.0 - mine.gradient_bytes / multi.gradient_bytes,
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "preset": self.preset,
            "repetitions": self.repetitions,
            "variants": [v.to_dict() for v in self.variants],
            "saved_against_multi": {
                name: {key: round(value, 4) for key, value in self.saved(name).items()}
                for name in ("single (paper)", "single (fused)")
            },
        }


def resampling_ablation(
    purifier: Purifier,
    twin: TorchReference,
    preset: str,
    data: LabelledImages,
    *,
    repetitions: int = 20,
    rounds: int = 3,
    seed: int = 0,
    on_round: Callable[[float], None] | None = None,
) -> Ablation:
    """Compare the ways to resample on one grid: that of a heterogeneous preset.

    Args:
        preset: its name; only its grid, levels and mask are used.
        data: clean labelled images.
        repetitions: U of the multi-step variant.
        rounds: timed rounds; the variants take turns.
        on_round: told the share that is done.

    Raises:
        ConfigError: the preset's method is another one.
    """
    chosen = purifier.preset(preset)
    spec = chosen.method
    if not isinstance(spec, HeterogeneousSpec):
        raise ConfigError(
            f"preset {preset!r} has the method {spec.method!r}; the ablation needs a heterogeneous one",
            code="E-ablation",
        )
    made = {name: _with(chosen, changes) for name, changes in _changes(spec, repetitions).items()}
    times: dict[str, list[float]] = {name: [] for name in made}
    calls: dict[str, float] = {}
    right: dict[str, int] = {}
    for variant in made.values():
        purifier.run(data.images[:1], variant, votes=1, noise=SeededNoise(seed))  # engines open at their first use
    for number in range(rounds):
        for place, (name, variant) in enumerate(made.items()):
            start = perf_counter()
            results = purifier.run(data.images, variant, votes=1, noise=SeededNoise(seed))
            times[name].append(1000.0 * (perf_counter() - start) / len(data))
            calls[name] = sum(r.unet_calls for r in results) / len(data)
            right[name] = sum(r.label == n for r, n in zip(results, _labels(data), strict=True))
            if on_round is not None:
                on_round((number + (place + 1) / len(made)) / rounds)
    image = torch.from_numpy(data.images[:1])
    variants = tuple(
        Resampling(
            name=name,
            unet_calls=calls[name],
            extra=calls[name] - calls["none"],
            ms=median(times[name]),
            gradient_bytes=_gradient_bytes(twin, made[name], image),
            right=right[name],
            images=len(data),
        )
        for name in made
    )
    return Ablation(preset, repetitions, variants)


def _changes(spec: HeterogeneousSpec, repetitions: int) -> dict[str, dict[str, Any]]:
    jump = spec.U if spec.resample == "single" else 3
    return {
        "none": {"resample": "none", "variant": "paper"},
        "single (fused)": {"resample": "single", "variant": "official", "U": jump},
        "single (paper)": {"resample": "single", "variant": "paper", "U": jump},
        "multi": {"resample": "multi", "variant": "paper", "U": repetitions},
    }


def _with(preset: Preset, changes: dict[str, Any]) -> Preset:
    method = HeterogeneousSpec.model_validate({**preset.method.model_dump(), **changes})
    return preset.model_copy(update={"method": method, "ssni": None})


def _labels(data: LabelledImages) -> list[int]:
    if data.labels is None:
        raise ConfigError("the ablation needs labelled images", code="E-data-labels")
    return [int(n) for n in data.labels]


def _gradient_bytes(twin: TorchReference, preset: Preset, image: Tensor) -> int:
    weights = {p.untyped_storage().data_ptr() for network in twin.networks for p in network.parameters()}
    before, twin.checkpointing = twin.checkpointing, False
    try:
        return saved_bytes(lambda x: twin.run_preset(x, preset, SeededNoise(0)).logits, image, weights)
    finally:
        twin.checkpointing = before
