"""How strong an attack is: what every attack object is given."""

from __future__ import annotations

from dataclasses import dataclass

from edgepure.errors import ConfigError
from edgepure_export.graphs.mask_cut import MaskGradient

from .balls import Norm


@dataclass(frozen=True)
class AttackSettings:
    """Attributes:

    norm, eps: the ball, on images in [0, 1].
    steps, eot, restarts: of every gradient attack. The attack on the plain classifier needs no EOT.
    mask_gradient: how the attention mask is differentiated, see `edgepure_export.graphs.mask_cut.cut_map`.
    norm_penalty: weight of the score norm in ``pgd-small-norm``, in units of the cross-entropy.
    selection: evaluations of each candidate where an attack ends with several.
    queries: of Square, for each image.
    surrogate_calls: UNet calls of the surrogate.
    grid, field: of the low-frequency attack: values a side, and their largest size; None: 3 eps.
    patch: share of the pixels that the square of ``patch`` takes.
    batch: images that are attacked at a time; a checkpoint is written after each batch.
    copies: EOT copies that are differentiated side by side; None: all.

    Raises:
        ConfigError: a value is out of range.
    """

    norm: Norm = "linf"
    eps: float = 8 / 255
    steps: int = 100
    eot: int = 20
    restarts: int = 1
    mask_gradient: MaskGradient = "none"
    norm_penalty: float = 1.0
    selection: int = 10
    queries: int = 1000
    surrogate_calls: int = 2
    grid: int = 4
    field: float | None = None
    patch: float = 0.05
    batch: int = 64
    copies: int | None = None

    def __post_init__(self) -> None:
        if self.norm not in ("linf", "l2"):
            raise ConfigError(f"norm {self.norm!r}: choose linf or l2", code="E-attack-norm")
        if not 0.0 < self.eps <= (1.0 if self.norm == "linf" else 1e4):
            raise ConfigError(
                f"eps {self.eps} is a radius on images in [0, 1] and must be above 0 (and at most 1 for linf)",
                code="E-attack-eps",
            )
        if self.mask_gradient not in ("none", "soft", "straight_through"):
            raise ConfigError(
                f"mask gradient {self.mask_gradient!r}: choose none, soft or straight_through",
                code="E-attack-mask-gradient",
            )
        self._at_least_one(
            "steps", "eot", "restarts", "selection", "queries", "surrogate_calls", "grid", "batch", "copies"
        )
        if self.norm_penalty < 0.0 or (self.field is not None and not 0.0 < self.field <= 1.0):
            raise ConfigError(
                "the norm penalty must not be negative, and the field of the low-frequency attack lies in (0, 1]",
                code="E-attack-penalty",
            )

        if not 0.0 < self.patch < 1.0:
            raise ConfigError(
                f"patch {self.patch} is the share of the pixels in the square and lies between 0 and 1",
                code="E-attack-settings",
            )

    def _at_least_one(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name.replace('_', ' ')} {value} must be at least 1", code="E-attack-count")

    @property
    def field_size(self) -> float:
        """Largest value of the low-frequency field."""
        return self.field if self.field is not None else min(1.0, 3.0 * self.eps)
