"""What a calibration measures, in two stages.

The search measures every candidate probe on some images, clean and attacked (without attacked ones, clean images with
random signs added stand in), and chooses one. Then the chosen probe, and those of the bundle's presets, are measured on
all images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal

import numpy as np

import edgepure
from edgepure.bundle.calibration import Calibration, FirstCall, ProbeCalibration
from edgepure.methods import EpsSpec
from edgepure.purify.purifier import Purifier
from edgepure.types import Progress

from ..progress import Meter
from ..work import Work
from .data import CalibrationData, random_signs
from .masks import AREAS, measure_masks
from .norms import ImageSet, measure_norms
from .probes import candidates, choose
from .reweighting import fit_linear, fit_sigmoid
from .settings import CalibrateSettings
from .statistics import Norms, distribution, rank_correlation, reference_sample, rounded, separation

Against = Literal["attacked", "random signs"]

#: Size of the random signs that stand in for attacks, in units of [0, 1].
STAND_IN_EPS = 8 / 255


@dataclass(frozen=True)
class ProbeNorms:
    """The score norms of one probe: of clean images ``[N]``, and of attacked ones (or their stand-in) ``[M]``."""

    probe: EpsSpec
    clean: Norms
    other: Norms


@dataclass(frozen=True)
class Measured:
    """A calibration and the norms that it was made of: ``search`` of all probes, ``final`` of those measured on all
    images."""

    calibration: Calibration
    against: Against
    search: tuple[ProbeNorms, ...]
    final: tuple[ProbeNorms, ...]


def measure(
    purifier: Purifier, data: CalibrationData, settings: CalibrateSettings, work: Work, report: Progress
) -> Measured:
    """Measure and choose. The bundle is not changed.

    The probes of presets and that of an earlier calibration, which a monitor watches, are measured on all images.
    """
    presets = purifier.presets.values()
    own = [p.ssni.probe for p in presets if p.ssni is not None]
    earlier = purifier.bundle.manifest.calibration
    if earlier is not None:
        own.append(earlier.chosen)
    timesteps = len(purifier.schedule)
    probes = candidates(own, settings.levels, settings.noise, settings.full_probe, timesteps)
    first = first_call_probe(purifier)
    clean, other, against = _image_sets(data, settings.seed)
    searched = min(len(clean.images), settings.search) + min(len(other.images), settings.search)
    every = len(clean.images) + len(other.images)
    # the probe that is going to be chosen is taken for one of a single call
    calls = searched * sum(p.unet_calls for p in [*probes, first]) + every * (1 + sum(p.unet_calls for p in set(own)))
    meter = Meter(calls, report)

    def norms_of(probes: Sequence[EpsSpec], most: int | None, words: str) -> tuple[ProbeNorms, ...]:
        """The norms of each probe on the first ``most`` images of both sets; None: on all."""
        both = (measure_norms(purifier, work, images, most, probes, meter, words) for images in (clean, other))
        return tuple(ProbeNorms(p, a, b) for p, a, b in zip(probes, *both, strict=True))

    search = norms_of(probes, settings.search, "comparing probes")
    chosen, reason = choose([_measured(norms, against) for norms in search])
    kept = [p for p in probes if any(p.same_rows(q) for q in (chosen.probe, *own))]
    final = norms_of(kept, None, "measuring all images")
    norms = next(n for n in final if n.probe is chosen.probe)
    attacks = norms.other if against == "attacked" else None
    (of_first,) = norms_of([first], settings.search, "measuring the first call of the purification")

    calibration = Calibration(
        created=date.today(),
        edgepure_version=edgepure.__version__,
        precision=purifier.precision,
        seed=settings.seed,
        clean=data.clean_record,
        attacked=data.attacked_record,
        probes=tuple(_entry(norms, final, against, settings.seed) for norms in search),
        chosen=chosen.probe,
        reason=reason,
        linear=fit_linear(norms.clean, attacks),
        sigmoid=fit_sigmoid(norms.clean, attacks),
        first_call=_first_call(purifier, of_first, search, chosen.probe, settings.full_probe, against),
        masks=measure_masks(purifier, clean.images[: settings.search], _areas(purifier, settings)),
    )
    return Measured(calibration, against, search, final)


def first_call_probe(purifier: Purifier) -> EpsSpec:
    """The first UNet call of the default preset as a probe: its noise level and its timestep label."""
    t = purifier.plan().rows[0].t
    return EpsSpec(levels=(t + 1.0,), label="index")


def _image_sets(data: CalibrationData, seed: int) -> tuple[ImageSet, ImageSet, Against]:
    clean = ImageSet(f"clean {data.clean.sha256}", data.clean.images, seed)
    if data.attacked is not None:
        return clean, ImageSet(f"attacked {data.attacked.sha256}", data.attacked.images, seed + 1), "attacked"
    stand_in = random_signs(data.clean.images, STAND_IN_EPS, seed)
    return clean, ImageSet(f"random signs {seed} {data.clean.sha256}", stand_in, seed + 1), "random signs"


def _measured(norms: ProbeNorms, against: Against) -> ProbeCalibration:
    return ProbeCalibration(
        probe=norms.probe,
        clean=distribution(norms.clean),
        separation=separation(norms.clean, norms.other, against),
    )


def _entry(norms: ProbeNorms, final: Sequence[ProbeNorms], against: Against, seed: int) -> ProbeCalibration:
    """What is recorded of a probe: that of all images, with its reference sample, where there is one."""
    on_all = next((f for f in final if f.probe is norms.probe), None)
    if on_all is None:
        return _measured(norms, against)
    return _measured(on_all, against).model_copy(update={"sample": reference_sample(on_all.clean, seed)})


def _first_call(
    purifier: Purifier,
    first: ProbeNorms,
    search: Sequence[ProbeNorms],
    chosen: EpsSpec,
    full: int,
    against: Against,
) -> FirstCall:
    """How the norms of the first call of a purification rank the images, clean and others together."""

    def both(norms: ProbeNorms) -> Norms:
        return np.concatenate([norms.clean, norms.other])

    by_probe = {norms.probe: norms for norms in search}
    papers = next((p for p in by_probe if p.levels is None and p.probes == min(full, len(purifier.schedule))), None)
    return FirstCall(
        preset=purifier.bundle.manifest.default_preset,
        probe=first.probe,
        rank_correlation=rounded(rank_correlation(both(first), both(by_probe[chosen]))),
        full_probe=papers,
        full_rank_correlation=None
        if papers is None
        else rounded(rank_correlation(both(first), both(by_probe[papers]))),
        separation=separation(first.clean, first.other, against),
    )


def _areas(purifier: Purifier, settings: CalibrateSettings) -> list[float]:
    """The usual areas, those of the bundle's presets, and the one that was asked for."""
    of_presets = [p.mask.area for p in purifier.presets.values() if p.mask is not None and p.mask.area is not None]
    asked = [] if settings.mask_area is None else [settings.mask_area]
    return sorted({*AREAS, *(a for a in of_presets if a < 1.0), *asked})
