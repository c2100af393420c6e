"""What a calibration tries, and how much it measures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgepure.bundle.manifest import Manifest
from edgepure.errors import ConfigError

from .probes import DEFAULT_LEVELS, NoiseChoice


@dataclass(frozen=True)
class CalibrateSettings:
    """What is tried and how much is measured.

    Attributes:
        levels: timesteps of each probe that is tried; several are one probe of that many UNet calls.
        noise: try probes ``with`` noise, ``without``, or ``both``.
        full_probe: UNet calls of the papers' probe, measured for comparison; 0 leaves it out.
        search: images of each kind on which the probes are compared.
        limit: images of each kind that are measured at all.
        presets: get SSNI, as ``NAME-ssni`` beside a preset without it. None: those that have it, or the default one.
        reweighting, minimum: of presets that had no SSNI, see `edgepure_calibration.calibrate.reweighting.with_ssni`.
        mask_area: set the threshold of every preset whose mask has one to what covers this area on average.
        seed: of the noise and of all draws.
    """

    levels: Sequence[Sequence[float]] = DEFAULT_LEVELS
    noise: NoiseChoice = "both"
    full_probe: int = 20
    search: int = 200
    limit: int = 2000
    presets: tuple[str, ...] | None = None
    reweighting: str = "sigmoid"
    minimum: float = 0.4
    mask_area: float | None = None
    seed: int = 0

    def check(self, manifest: Manifest) -> None:
        """Raise ConfigError if a value is out of range, or this bundle has no such thing."""
        for name in self.presets or ():
            manifest.preset(name)
        if not 20 <= self.search <= self.limit:
            raise ConfigError(
                f"search {self.search} and limit {self.limit}: the probes are compared on at least 20 images, and "
                "on no more than are measured",
                code="E-calibrate-search",
            )
        if self.noise not in ("both", "with", "without"):
            raise ConfigError(f"noise {self.noise!r}: choose both, with or without", code="E-calibrate-noise")
        if self.reweighting not in ("sigmoid", "linear"):
            raise ConfigError(
                f"reweighting {self.reweighting!r}: choose sigmoid or linear", code="E-calibrate-reweighting"
            )
        if not 0.0 <= self.minimum <= 1.0:
            raise ConfigError(
                f"minimum {self.minimum} is a fraction of the noise level and must be in 0..1",
                code="E-calibrate-minimum",
            )
        if self.mask_area is not None and not 0.0 < self.mask_area < 1.0:
            raise ConfigError(
                f"mask area {self.mask_area} is a share of the pixels and must be between 0 and 1",
                code="E-calibrate-mask-area",
            )
        if self.mask_area is not None and "mask" not in manifest.graphs:
            raise ConfigError(
                "this bundle has no mask graph, so there is no mask area to choose; leave it out",
                code="E-calibrate-mask",
            )
