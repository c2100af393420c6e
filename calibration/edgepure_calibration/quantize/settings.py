"""What is asked of `quantize`, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgepure.bundle.entries import Target, VariantName

from ..data_checks import check_pairs
from .verdict import Limits, PresetGate


@dataclass(frozen=True)
class QuantizeSettings:
    """What `quantize` is asked to do.

    Attributes:
        precision: of the variant.
        target: the provider that it is for; judged on another one, its speed cannot be measured.
        presets: names; empty: the default preset alone.
        keep: layers that stay in higher precision in any case (see `edgepure_export.graphs.precision.matching`).
        limits: of the gate.
        redraws: noises that each image of the gate is purified with.
        seed: of everything random.
        certificates: file of the certificates of fp32 (`edgepure certify`) to carry to the variant, for those of the
            given images that they are about; None: none are.
        pairs: answers of both precisions to the same noise that this takes for each of these images.
    """

    precision: VariantName
    target: Target = "cpu"
    presets: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    redraws: int = 5
    seed: int = 1
    certificates: str | None = None
    pairs: int = 1000

    def __post_init__(self) -> None:
        check_pairs(self.pairs)


@dataclass(frozen=True)
class Attempt:
    """One draft: the layers that it keeps (those of the request included), its error on recorded calls (root mean
    square, as a share of a step's result), and its way through the gate."""

    kept: tuple[str, ...]
    error: float
    gates: tuple[PresetGate, ...]

    @property
    def reasons(self) -> list[str]:
        """What failed; empty if nothing did."""
        return [reason for gate in self.gates for reason in gate.reasons]


@dataclass(frozen=True)
class Outcome:
    """What `quantize` found. It is true if the variant was written into the bundle."""

    accepted: bool
    reasons: tuple[str, ...]
    evidence: Mapping[str, Any]

    def __bool__(self) -> bool:
        return self.accepted
