"""What an evaluation does: attacks, their strength, decisions."""

from __future__ import annotations

from dataclasses import dataclass

from edgepure.errors import ConfigError
from edgepure_export.graphs.mask_cut import MaskGradient

from ..attacks import Norm

#: Every attack by name, and what it is.
ATTACKS = {
    "transfer": "PGD on the plain classifier; its images are given to the defence",
    "bpda": "PGD-EOT, the purification's gradient replaced by the identity",
    "surrogate": "PGD-EOT through a purification of few steps, as the methods' authors attack",
    "pgd": "PGD-EOT with exact gradients through every deployed step",
    "pgd-small-norm": "the same, and the image's score norm is kept small to get less noise from SSNI",
    "apgd-ce": "Auto-PGD with EOT on the cross-entropy, exact gradients",
    "apgd-dlr": "Auto-PGD with EOT on the DLR loss, exact gradients",
    "apgd": "both of these, and the worse of the two for each image: AutoAttack's version `rand`",
    "low-frequency": "a smooth field is added; exact gradients; no Lp ball of radius eps",
    "square": "black-box: Square Attack on the deployed engine's answers",
}
#: Attacks whose gradient goes through the whole defence, so that the mask has one if it is asked for.
THROUGH_THE_DEFENCE = ("pgd", "pgd-small-norm", "apgd-ce", "apgd-dlr", "apgd", "low-frequency")
#: Attacks that differentiate rows of a purification, the surrogate's too.
THROUGH_ROWS = {*THROUGH_THE_DEFENCE, "surrogate"}
DEFAULT_ATTACKS = ("transfer", "pgd", "apgd", "low-frequency", "square")
#: So many images are evaluated at most unless a number is asked for; critics ask for at least so many.
USUAL_IMAGES = 256


@dataclass(frozen=True)
class Settings:
    """Attributes:

    attacks: names of `ATTACKS`.
    norm, eps: the ball, on images in [0, 1].
    steps, eot, restarts: of every gradient attack. The attack on the plain classifier needs no EOT.
    votes: K of the majority; None: as the preset says.
    worst: N of worst-of-N, and the length of the resubmission curve at least.
    images: drawn, every class in proportion; None: all, at most 256.
    seeds: one whole run of each attack for each of them.
    mask_gradient: other than ``none``: presets with a mask are attacked in this way too, beside ``none``.
    norm_penalty: weight of the score norm in ``pgd-small-norm``, in units of the cross-entropy.
    selection: evaluations of each candidate where an attack ends with several.
    queries: of Square, for each image.
    surrogate_calls: UNet calls of the surrogate.
    grid, field: of the low-frequency attack: values a side, and their largest size; None: 3 eps.
    batch: images that are attacked at a time; a checkpoint is written after each batch.
    copies: EOT copies that are differentiated side by side; None: all.
    subset_seed: of the draw of the images.
    noise_seed: of the judging noise; None: secret, drawn by the system, and recorded afterwards.
    """

    attacks: tuple[str, ...] = DEFAULT_ATTACKS
    norm: Norm = "linf"
    eps: float = 8 / 255
    steps: int = 100
    eot: int = 20
    restarts: int = 1
    votes: int | None = None
    worst: int = 10
    images: int | None = None
    seeds: tuple[int, ...] = (0,)
    mask_gradient: MaskGradient = "none"
    norm_penalty: float = 1.0
    selection: int = 10
    queries: int = 1000
    surrogate_calls: int = 2
    grid: int = 4
    field: float | None = None
    batch: int = 64
    copies: int | None = None
    subset_seed: int = 0
    noise_seed: int | None = None

    def __post_init__(self) -> None:
        unknown = [name for name in self.attacks if name not in ATTACKS]
        if unknown or not self.attacks:
            raise ConfigError(f"attack {unknown[0] if unknown else ''!r}: choose among {', '.join(ATTACKS)}")
        if self.norm not in ("linf", "l2"):
            raise ConfigError(f"norm {self.norm!r}: choose linf or l2")
        if not 0.0 < self.eps <= (1.0 if self.norm == "linf" else 1e4):
            raise ConfigError(
                f"eps {self.eps} is a radius on images in [0, 1] and must be above 0 (and at most 1 for linf)"
            )
        if self.norm == "l2" and "square" in self.attacks:
            raise ConfigError("the attack square is there for linf only; leave it out of --attack, or give --norm linf")
        if self.mask_gradient not in ("none", "soft", "straight_through"):
            raise ConfigError(f"mask gradient {self.mask_gradient!r}: choose none, soft or straight_through")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds) or not all(0 <= s < 2**31 for s in self.seeds):
            raise ConfigError(f"seeds {list(self.seeds)}: give different whole numbers from 0 to 2^31 - 1")
        for name in ("steps", "eot", "restarts", "worst", "selection", "queries", "surrogate_calls", "grid", "batch"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name.replace('_', ' ')} {getattr(self, name)} must be at least 1")
        for name in ("votes", "images", "copies"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} {value} must be at least 1")
        if self.norm_penalty < 0.0 or (self.field is not None and not 0.0 < self.field <= 1.0):
            raise ConfigError(
                "the norm penalty must not be negative, and the field of the low-frequency attack lies in (0, 1]"
            )

    @property
    def field_size(self) -> float:
        """Largest value of the low-frequency field."""
        return self.field if self.field is not None else min(1.0, 3.0 * self.eps)
