"""`calibrate`: measure score norms and mask areas with the exported graphs, and put the result into the bundle."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

from edgepure.bundle.bundle import Bundle
from edgepure.bundle.calibration import Calibration
from edgepure.bundle.edit import edit_bundle
from edgepure.bundle.manifest import Manifest
from edgepure.errors import BundleError, ConfigError
from edgepure.files.locks import work_folder
from edgepure.images.dataset import LabelledImages
from edgepure.methods.presets import MaskSpec, Preset
from edgepure.purify.purifier import Purifier

from ..bundle_presets import put_presets
from .data import load_data
from .masks import threshold_for
from .norm_store import NormStore, graphs_key
from .probes import DEFAULT_LEVELS, NoiseChoice
from .reweighting import with_ssni
from .run import Measured, OnProgress, run


@dataclass(frozen=True)
class Settings:
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


@dataclass(frozen=True)
class Calibrated:
    """What `calibrate` found.

    Attributes:
        bundle: its directory.
        calibration: as it is in the bundle now, or would be.
        presets: added or changed, by name.
        applied: False if the bundle was left as it is.
        measured: the score norms behind it, for plots.
    """

    bundle: Path
    calibration: Calibration
    presets: dict[str, Preset]
    applied: bool
    measured: Measured = field(repr=False)


def calibrate(
    bundle: str | PathLike[str],
    data: str | Path | LabelledImages,
    *,
    attacked: str | Path | LabelledImages | None = None,
    settings: Settings | None = None,
    apply: bool = True,
    work: str | PathLike[str] | None = None,
    provider: str = "cpu",
    precision: str = "fp32",
    threads: int | None = None,
    resize: bool = False,
    on_progress: OnProgress | None = None,
) -> Calibrated:
    """Measure and choose everything that `edgepure.bundle.calibration.Calibration` holds.

    Args:
        bundle: its directory.
        data: clean images as `edgepure.images.dataset` reads them, at least 50. They should not be those that the
            diffusion model was trained on, or the monitor's false-positive rate holds for training images only.
        attacked: images that were attacked, at least 20. They make a better choice of the probe and of tau and xi_max.
        settings: what to try; None: the defaults of `Settings`.
        apply: write calibration and presets into the bundle, all at once at the end. False: leave it as it is.
        work: folder for partial results: with the same images, graphs and engine the next run goes on there. None:
            nothing is kept.
        provider, precision, threads: as in `edgepure.load`.
        resize: resize images of another size instead of refusing them.
        on_progress: called with (share of the UNet calls that is done, what is going on).

    Raises:
        ImageError, ConfigError: images or settings are unfit.
        BundleError: the bundle is not whole, or was changed meanwhile; it stays as it is.
        EdgepureError: another run is at work in the folder.
    """
    settings = settings or Settings()
    report = on_progress or (lambda share, what: None)
    report(0.0, "opening the bundle")
    opened = Bundle.open(bundle)
    _check(settings, opened.manifest)
    with Purifier(opened, provider, precision=precision, threads=threads, slots=16) as purifier:
        report(0.0, "reading the images")
        images = load_data(purifier, data, attacked, limit=settings.limit, seed=settings.seed, resize=resize)
        with nullcontext() if work is None else work_folder(Path(work)):
            measured = run(purifier, images, settings, _store(opened, provider, precision, work), report)
    presets = changed_presets(opened.manifest, measured.calibration, settings)
    if apply:
        report(1.0, "writing the bundle")
        with edit_bundle(opened.path) as edit:
            if graphs_key(edit.manifest, precision) != graphs_key(opened.manifest, precision):
                raise BundleError(f"{opened.path} was exported anew in the meantime; run the command again")
            put_presets(edit, changed_presets(edit.manifest, measured.calibration, settings))
            edit.manifest = edit.manifest.model_copy(update={"calibration": measured.calibration})
    return Calibrated(opened.path, measured.calibration, presets, apply, measured)


def changed_presets(manifest: Manifest, calibration: Calibration, settings: Settings) -> dict[str, Preset]:
    """The presets that a calibration changes or adds."""
    names = settings.presets
    if names is None:
        names = tuple(name for name, p in manifest.presets.items() if p.ssni is not None) or (manifest.default_preset,)
    changed: dict[str, Preset] = {}
    for name in names:
        preset = manifest.presets[name]
        target = name if preset.ssni is not None else f"{name}-ssni"
        made = with_ssni(preset, calibration, settings.reweighting, settings.minimum)
        if preset.ssni is None:
            words = f"{name}, its noise level chosen for each image"
            made = made.model_copy(update={"description": words})
        changed[target] = made
    if settings.mask_area is not None:
        for name, preset in {**manifest.presets, **changed}.items():
            if preset.mask is not None and preset.mask.threshold is not None:
                threshold = threshold_for(calibration.masks, preset.mask.rule, settings.mask_area)
                mask = MaskSpec(rule=preset.mask.rule, threshold=threshold)
                changed[name] = preset.model_copy(update={"mask": mask})
    return changed


def _store(bundle: Bundle, provider: str, precision: str, work: str | PathLike[str] | None) -> NormStore:
    if work is None:
        return NormStore(None)
    return NormStore(Path(work) / f"score-norms-{provider}-{graphs_key(bundle.manifest, precision)[:16]}.npz")


def _check(settings: Settings, manifest: Manifest) -> None:
    for name in settings.presets or ():
        if name not in manifest.presets:
            raise ConfigError(f"no preset {name!r} in this bundle; it has {', '.join(sorted(manifest.presets))}")
    if not 20 <= settings.search <= settings.limit:
        raise ConfigError(
            f"search {settings.search} and limit {settings.limit}: the probes are compared on at least 20 images, and "
            "on no more than are measured"
        )
    if settings.noise not in ("both", "with", "without"):
        raise ConfigError(f"noise {settings.noise!r}: choose both, with or without")
    if settings.reweighting not in ("sigmoid", "linear"):
        raise ConfigError(f"reweighting {settings.reweighting!r}: choose sigmoid or linear")
    if not 0.0 <= settings.minimum <= 1.0:
        raise ConfigError(f"minimum {settings.minimum} is a fraction of the noise level and must be in 0..1")
    if settings.mask_area is not None and not 0.0 < settings.mask_area < 1.0:
        raise ConfigError(f"mask area {settings.mask_area} is a share of the pixels and must be between 0 and 1")
    if settings.mask_area is not None and "mask" not in manifest.graphs:
        raise ConfigError("this bundle has no mask graph, so there is no mask area to choose; leave it out")
