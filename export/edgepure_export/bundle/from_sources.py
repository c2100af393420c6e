"""One call from names and files to a bundle: the function behind ``edgepure export``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from edgepure.errors import ConfigError, ExportError
from edgepure.methods import published
from edgepure.methods.presets import Preset
from edgepure.rows.schedule import NoiseSchedule, ScheduleSpec, schedule_from

from ..graphs.attention import MaskModule
from ..graphs.taps import Taps, find_taps, named_taps
from ..networks.checkpoints import require_memory
from ..sources.preprocessing import Preprocessed
from ..sources.resolve import ClassifierSource, DiffusionSource, resolve_classifier, resolve_diffusion
from .graph_files import ExportProgress
from .writer import export_bundle

_log = logging.getLogger(__name__)

#: Which blocks of the classifier to tap: those of its family if it is known, none, or these.
Blocks = Literal["auto", "none"] | Sequence[str]

#: Memory that an export takes beyond the loaded networks, as a multiple of their weights: the graph's copy, the
#: session of the parity check, and activations. Measured: 1.5 for CIFAR-10's DDPM++ deep, 4.4 for ImageNet 256x256.
MEMORY_FACTOR = 4.5


@dataclass(frozen=True)
class ExportedBundle:
    """What was exported.

    Attributes:
        path: the bundle.
        classifier, diffusion: the resolved sources.
        taps: the tapped blocks; None without a mask graph.
    """

    path: Path
    classifier: ClassifierSource
    diffusion: DiffusionSource
    taps: Taps | None


def export_from_sources(
    classifier: str,
    diffusion: str,
    out: str | PathLike[str],
    *,
    preset: str | Sequence[str] | None = None,
    statistics: Mapping[str, float] | None = None,
    presets: Mapping[str, Preset | Mapping[str, Any]] | None = None,
    blocks: Blocks = "auto",
    mask_input: Literal["own", "official"] | None = None,
    image: tuple[int, int, int] | None = None,
    schedule: NoiseSchedule | ScheduleSpec | Mapping[str, Any] | None = None,
    classifier_weights: str | PathLike[str] | None = None,
    diffusion_weights: str | PathLike[str] | None = None,
    classes: Sequence[str] | None = None,
    sample_images: Any = None,
    check_epsilon: bool = True,
    on_progress: ExportProgress | None = None,
    on_sources: Callable[[ClassifierSource, DiffusionSource], Any] | None = None,
    **options: Any,
) -> ExportedBundle:
    """Resolve two sources and export them.

    Args:
        classifier, diffusion: see `sources`, for example ``timm:resnet50`` and
            ``guided-diffusion:256x256_diffusion_uncond.pt``.
        out: the directory to make.
        preset: names from `edgepure.methods.published`; the first one becomes the default.
        statistics: mu and tau, or xi_min and xi_max, for presets with SSNI.
        presets: presets of your own, by name, after the published ones.
        blocks: see `Blocks`.
        mask_input: what the tapped classifier sees; None: what the published presets say, else ``own``.
        image: channels, height and width; None: those that the diffusion model was trained on.
        schedule: whose index the timesteps are; None: linear VP with T = 1000, which published presets refer to.
        classifier_weights, diffusion_weights: the same as ``?weights=`` in the source.
        classes: names of the classes; None: what the source knows.
        sample_images: as `export_bundle`, or a function of (channels, height, width) that gives them.
        check_epsilon: refuse a network that does not predict noise; off by itself for ``?weights=random``.
        on_sources: called with both sources before the export begins.
        options: the others of `export_bundle`.

    Raises:
        ExportError, ConfigError, EdgepureError: as `export_bundle` and `resolve_classifier`; nothing is left behind.
    """
    names = [preset] if isinstance(preset, str) else list(preset or ())
    chosen: dict[str, Preset | Mapping[str, Any]] = {**published.choose(names, statistics), **(presets or {})}
    if len(chosen) < len(names) + len(presets or {}):
        raise ConfigError("a preset of your own has the name of a published one; give it another name")
    wanted_input = mask_input or published.mask_input(names)
    report: ExportProgress = on_progress or (lambda stage, share: None)
    report("loading the networks", 0.0)
    runtime = None if schedule is None else schedule_from(_plain(schedule))
    unet = resolve_diffusion(diffusion, diffusion_weights, runtime)
    shape = image or unet.image
    if shape is None:
        raise ExportError(f"{diffusion} does not tell its image size; give it (--image CxHxW)")
    source = resolve_classifier(classifier, classifier_weights, (shape[1], shape[2]))
    if on_sources is not None:
        on_sources(source, unet)
    for what, found in (("classifier", source), ("diffusion model", unet)):
        if found.untrained:
            _log.warning("the %s has random weights: good for measuring, not for classifying", what)
    taps = choose_taps(source, blocks, chosen)
    normalises = isinstance(source.model, Preprocessed) and source.model.normalises
    if wanted_input == "official" and taps is not None and normalises:
        raise ExportError(
            "mask input 'official' normalises the image itself, and so does this classifier's preprocessing; add "
            "variant=official to the classifier, or choose mask input 'own' (--mask-input own)"
        )
    weights = sum(p.numel() * p.element_size() for m in (source.model, unet.model) for p in m.parameters())
    require_memory(int(MEMORY_FACTOR * weights), "the graphs of these networks and their parity check")
    path = export_bundle(
        source.model,
        unet.model,
        out,
        image_size=(shape[1], shape[2]),
        channels=shape[0],
        schedule=_plain(schedule) if schedule is not None else unet.schedule,
        blocks=taps,
        classes=classes or source.classes,
        presets=chosen or None,
        sample_images=sample_images(shape) if callable(sample_images) else sample_images,
        mask_input=wanted_input,
        check_epsilon=check_epsilon and not unet.untrained,
        classifier_source=source.origin,
        diffusion_source=unet.origin,
        on_progress=on_progress,
        **options,
    )
    return ExportedBundle(path, source, unet, taps)


def choose_taps(
    source: ClassifierSource, blocks: Blocks, presets: Mapping[str, Preset | Mapping[str, Any]]
) -> Taps | None:
    """The blocks to tap.

    Raises:
        ExportError: a preset needs a mask, and the classifier's family is unknown or the blocks were switched off.
    """
    masked = [name for name, p in presets.items() if (p if isinstance(p, Preset) else Preset.parse(dict(p))).mask]
    if blocks == "none":
        if masked:
            raise ExportError(f"preset {masked[0]!r} needs an attention mask, so blocks cannot be 'none'")
        return None
    if blocks != "auto":
        named = (blocks,) if isinstance(blocks, str) else tuple(blocks)
        modules = dict(source.model.named_modules())
        # A library's names are those of its own network, which sits inside the preprocessing.
        inner = [n if n in modules or f"network.{n}" not in modules else f"network.{n}" for n in named]
        return named_taps(source.model, inner)
    try:
        return find_taps(source.model)
    except ExportError as error:
        if masked:
            raise ExportError(f"preset {masked[0]!r} needs an attention mask: {error} (--blocks)") from None
        return None


def preview_taps(source: ClassifierSource, taps: Taps, image: tuple[int, int, int]) -> dict[str, tuple[int, ...]]:
    """Shape [C, h, w] of each tapped map for images of this size, to look at before an export."""
    import torch

    module = MaskModule(source.model, taps, (image[1], image[2]))
    try:
        with torch.no_grad():
            source.model(torch.zeros((1, *image)))
        return {name: tuple(a.shape[1:]) for name, a in zip(taps.names, module.activations(), strict=True)}
    finally:
        module.close()


def _plain(schedule: NoiseSchedule | ScheduleSpec | Mapping[str, Any]) -> Any:
    return dict(schedule) if isinstance(schedule, Mapping) else schedule
