"""`calibrate`: measure score norms and mask areas with the exported graphs, and put the result into the bundle."""

from __future__ import annotations

from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

from edgepure.bundle.bundle import Bundle
from edgepure.bundle.calibration import Calibration, ProbeCalibration
from edgepure.bundle.edit import edit_bundle
from edgepure.bundle.manifest import Manifest
from edgepure.errors import BundleError
from edgepure.images.dataset import LabelledImages
from edgepure.methods.presets import MaskSpec, Preset
from edgepure.types import Progress

from ..bundle_presets import put_presets
from ..provider import ProviderSettings
from ..work import bundle_key, open_work
from .data import load_data
from .masks import threshold_for
from .measured import Measured, measure
from .reweighting import with_ssni
from .settings import CalibrateSettings


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
    settings: CalibrateSettings | None = None,
    apply: bool = True,
    work: str | PathLike[str] | None = None,
    provider: ProviderSettings | None = None,
    on_progress: Progress | None = None,
) -> Calibrated:
    """Measure and choose everything that `edgepure.bundle.calibration.Calibration` holds.

    Args:
        bundle: its directory.
        data: clean images as `edgepure.images.dataset` reads them, at least 50. They should not be those that the
            diffusion model was trained on, or the monitor's false-positive rate holds for training images only.
        attacked: images that were attacked, at least 20. They make a better choice of the probe and of tau and xi_max.
        settings: what to try; None: the defaults of `CalibrateSettings`.
        apply: write calibration and presets into the bundle, all at once at the end. False: leave it as it is.
        work: folder for partial results: with the same images, graphs and provider the next run goes on there. None:
            nothing is kept.
        provider: what runs the graphs.
        on_progress: called with (share of the UNet calls that is done, what is going on).

    Raises:
        ImageError, ConfigError: images or settings are unfit.
        BundleError: the bundle is not whole, or was changed meanwhile; it stays as it is.
        EdgepureError: another run is at work in the folder.
    """
    settings, runs_on = settings or CalibrateSettings(), provider or ProviderSettings(slots=16)
    report: Progress = on_progress or (lambda share, words: None)
    report(0.0, "opening the bundle")
    opened = Bundle.open(bundle)
    settings.check(opened.manifest)
    folder = None if work is None else Path(work)
    with runs_on.open(opened) as purifier:
        report(0.0, "reading the images")
        images = load_data(purifier, data, attacked, limit=settings.limit, seed=settings.seed)
        with open_work(folder, runs_on.key(opened.manifest)) as store:
            measured = measure(purifier, images, settings, store, report)
    calibration = beside(opened.manifest.calibration, measured.calibration)
    presets = changed_presets(opened.manifest, calibration, settings)
    if apply:
        report(1.0, "writing the bundle")
        with edit_bundle(opened.path) as edit:
            if bundle_key(edit.manifest, runs_on.precision) != bundle_key(opened.manifest, runs_on.precision):
                raise BundleError(
                    f"{opened.path} was exported anew in the meantime; run the command again", code="E-bundle-busy"
                )
            put_presets(edit, changed_presets(edit.manifest, calibration, settings))
            edit.manifest = edit.manifest.model_copy(update={"calibration": calibration})
    return Calibrated(opened.path, calibration, presets, apply, measured)


def beside(old: Calibration | None, new: Calibration) -> Calibration:
    """What a bundle holds after a calibration, so that monitors work in every precision that was calibrated.

    In another precision and on the same images as the one before, a calibration adds its score norms to it: what was
    chosen there, which the presets follow, stays. Otherwise the new one takes its place, and keeps those norms of other
    precisions that are of the same probes and images.
    """
    if old is None or old.clean.sha256 != new.clean.sha256:
        return new
    first = old if old.precision != new.precision else new
    mine = [p for p in first.probes if (p.precision or first.precision) == first.precision]
    watched = [p.probe for p in mine if p.sample]
    found: dict[str, list[ProbeCalibration]] = {}
    for one in (old, new):  # where both have a precision, the later one counts
        for precision in {p.precision or one.precision for p in one.probes} - {first.precision}:
            found[precision] = [
                p.model_copy(update={"precision": precision})
                for p in one.probes
                if (p.precision or one.precision) == precision
                and p.sample
                and any(p.probe.same_rows(probe) for probe in watched)
            ]
    others = [p for precision in sorted(found) for p in found[precision]]
    return first.model_copy(update={"probes": (*mine, *others)})


def changed_presets(manifest: Manifest, calibration: Calibration, settings: CalibrateSettings) -> dict[str, Preset]:
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
            spec = preset.mask
            if spec is not None and spec.source == "attention" and spec.threshold is not None:
                threshold = threshold_for(calibration.masks, spec.rule, settings.mask_area)
                mask = MaskSpec(rule=spec.rule, threshold=threshold)
                changed[name] = preset.model_copy(update={"mask": mask})
    return changed
