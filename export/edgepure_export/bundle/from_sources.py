"""One call from names and files to a bundle: the function behind ``edgepure export``."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from edgepure.bundle.task import TASK_KINDS
from edgepure.errors import ConfigError, ExportError
from edgepure.methods import published
from edgepure.methods.presets import Preset
from edgepure.rows.schedule import NoiseSchedule, ScheduleSpec, schedule_from
from edgepure.types import Progress

from ..graphs.attention import MaskModule
from ..graphs.tap_families import Taps
from ..graphs.taps import candidate_blocks, find_taps, named_taps
from ..networks.checkpoints import require_memory
from ..sources.preprocessing import Preprocessed
from ..sources.resolve import resolve_classifier, resolve_diffusion, resolve_task
from ..sources.scheme import ClassifierSource, DiffusionSource
from .settings import ExportSettings
from .tasks import Task
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
        classifier, backbone, task, diffusion: the resolved sources; None where there is none.
        taps: the tapped blocks; None without a mask graph.
        candidates: without a mask graph that nobody switched off: blocks that could be named for one.
    """

    path: Path
    classifier: ClassifierSource | None
    diffusion: DiffusionSource
    taps: Taps | None
    candidates: tuple[str, ...] = ()
    backbone: ClassifierSource | None = None
    task: ClassifierSource | None = None


@dataclass(frozen=True)
class TaskSource:
    """A task to resolve.

    Attributes:
        kind: ``detection``, ``segmentation``, ``embedding``; or ``classification``, which is the classifier.
        source: as a classifier's, or the name of an ONNX file.
        outputs, settings, frame: as `Task`.
    """

    kind: str
    source: str
    outputs: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, float] = field(default_factory=dict)
    frame: tuple[int, int] | None = None


def export_from_sources(
    classifier: str | None,
    diffusion: str,
    out: str | PathLike[str],
    *,
    preset: str | Sequence[str] | None = None,
    statistics: Mapping[str, float] | None = None,
    presets: Mapping[str, Preset | Mapping[str, Any]] | None = None,
    backbone: str | None = None,
    task: TaskSource | None = None,
    blocks: Blocks = "auto",
    image: tuple[int, int, int] | None = None,
    classifier_weights: str | PathLike[str] | None = None,
    diffusion_weights: str | PathLike[str] | None = None,
    sample_images: Any = None,
    settings: ExportSettings | None = None,
    on_progress: Progress | None = None,
    **changes: Any,
) -> ExportedBundle:
    """Resolve sources and export them.

    Args:
        classifier, diffusion: see `edgepure_export.sources`, for example ``timm:resnet50`` and
            ``guided-diffusion:256x256_diffusion_uncond.pt``. Without a classifier (None) the bundle gives no labels.
        out: the directory to make.
        preset: names from `edgepure.methods.published`; the first one becomes the default.
        statistics: mu and tau, or xi_min and xi_max, for presets with SSNI.
        presets: presets of your own, by name, after the published ones.
        backbone: as a classifier: the network that is tapped for the attention mask where there is no classifier.
        task: what is done with purified images in place of classifying them. Its own network is tapped where blocks are
            named and there is no backbone.
        blocks: see `Blocks`.
        image: channels, height and width; None: those that the diffusion model was trained on.
        classifier_weights, diffusion_weights: the same as ``?weights=`` in the source.
        sample_images: as `export_bundle`, or a function of (channels, height, width) that gives them: of its frames
            for a task that takes frames.
        settings, changes: as `export_bundle`. ``schedule``: whose index the timesteps are; None: linear VP with
            T = 1000, which published presets refer to. ``check_epsilon`` is off by itself for ``?weights=random``.
        on_progress: called with (share done, what is being done).

    Raises:
        ExportError, ConfigError, EdgepureError: as `export_bundle` and `resolve_classifier`; nothing is left behind.
    """
    said = (settings or ExportSettings()).changed(changes)
    schedule = said.schedule
    names = [preset] if isinstance(preset, str) else list(preset or ())
    chosen: dict[str, Preset | Mapping[str, Any]] = {**published.choose(names, statistics), **(presets or {})}
    if len(chosen) < len(names) + len(presets or {}):
        raise ConfigError(
            "a preset of your own has the name of a published one; give it another name", code="E-preset-name"
        )
    wanted_input = said.mask_input or published.mask_input(names)
    if on_progress is not None:
        on_progress(0.0, "loading the networks")
    runtime = None if schedule is None else schedule_from(_plain(schedule))
    unet = resolve_diffusion(diffusion, diffusion_weights, runtime)
    shape = image or unet.image
    if shape is None:
        raise ExportError(
            f"{diffusion} does not tell its image size; give it (--image CxHxW)", code="E-image-size-unknown"
        )
    size = (shape[1], shape[2])
    if task is not None and task.kind == "classification":
        if classifier is not None or task.outputs or task.settings or task.frame:
            raise ExportError(
                "the task classification is the classifier itself: give one of them, and no outputs, settings or frame",
                code="E-export-networks",
            )
        classifier, task = task.source if ":" in task.source else f"onnx:{task.source}", None
    reader = None if task is None else resolve_task(task.source, task.frame or size, boxes=task.kind == "detection")
    source = None if classifier is None else resolve_classifier(classifier, classifier_weights, size)
    second = None if backbone is None else resolve_classifier(backbone, None, size)
    own = reader if blocks not in ("auto", "none") else None
    tapped = second or source or own
    given = {"classifier": source, "backbone": second, "task": reader, "diffusion model": unet}
    for what, found in given.items():
        if found is not None and found.untrained:
            _log.warning("the %s has random weights: good for measuring, not for purifying", what)
    taps = None if tapped is None else choose_taps(tapped, blocks, chosen, shape)
    if second is not None and taps is None:
        raise ExportError(
            "the backbone is there for its blocks, and none are known of its family or they were switched off; name "
            f"some (--blocks) of {', '.join(candidate_blocks(second.model)[:20])}",
            code="E-taps-needed",
        )
    if tapped is None:
        _check_untapped(blocks, chosen)
    normalises = tapped is not None and isinstance(tapped.model, Preprocessed) and tapped.model.normalises
    if wanted_input == "official" and taps is not None and normalises:
        raise ExportError(
            "mask input 'official' normalises the image itself, and so does this classifier's preprocessing; add "
            "variant=official to the classifier, or choose mask input 'own' (--mask-input own)",
            code="E-mask-input-twice",
        )
    weights = sum(p.numel() * p.element_size() for s in given.values() if s is not None for p in s.model.parameters())
    require_memory(int(MEMORY_FACTOR * weights), "the graphs of these networks and their parity check")
    answered = shape if task is None or task.frame is None else (shape[0], *task.frame)
    path = export_bundle(
        None if source is None else source.model,
        unet.model,
        out,
        image_size=size,
        blocks=taps,
        backbone=None if second is None else second.model,
        task=None if task is None or reader is None else _task(task, reader, said),
        presets=chosen or None,
        sample_images=sample_images(answered) if callable(sample_images) else sample_images,
        settings=replace(
            said,
            channels=shape[0],
            schedule=_plain(schedule) if schedule is not None else unet.schedule,
            classes=said.classes or (None if source is None else source.classes),
            mask_input=wanted_input,
            check_epsilon=said.check_epsilon and not unet.untrained,
            classifier_source=said.classifier_source or (None if source is None else source.origin),
            backbone_source=said.backbone_source or (None if second is None else second.origin),
            task_source=said.task_source or (None if reader is None else reader.origin),
            diffusion_source=said.diffusion_source or unet.origin,
        ),
        on_progress=on_progress,
    )
    offered = tuple(candidate_blocks(source.model)) if source is not None and taps is None and blocks == "auto" else ()
    return ExportedBundle(path, source, unet, taps, offered, second, reader)


def _task(task: TaskSource, reader: ClassifierSource, settings: ExportSettings) -> Task:
    if task.kind not in TASK_KINDS:
        raise ExportError(
            f"task {task.kind!r} is unknown; choose classification, {', '.join(TASK_KINDS)}", code="E-task-kind"
        )
    kind: Any = task.kind
    return Task(
        kind, reader.model, settings.classes or reader.classes, dict(task.outputs), dict(task.settings), task.frame
    )


def _check_untapped(blocks: Blocks, presets: Mapping[str, Preset | Mapping[str, Any]]) -> None:
    """A diffusion model alone has no blocks, and no attention mask.

    Raises:
        ExportError: blocks are named, or a preset needs an attention mask.
    """
    if blocks not in ("auto", "none"):
        raise ExportError(
            f"there is no network with the blocks {blocks!r:.80}: the diffusion model is alone; give a backbone that "
            "has them (--backbone)",
            code="E-export-networks",
        )
    for name in _attended(presets):
        raise ExportError(
            f"preset {name!r} needs an attention mask, and the diffusion model is alone; give a backbone to tap "
            "(--backbone), or let the caller give the mask (mask.source=caller)",
            code="E-taps-needed",
        )


def _attended(presets: Mapping[str, Preset | Mapping[str, Any]]) -> list[str]:
    """The presets whose mask comes from attention."""
    parsed = {name: p if isinstance(p, Preset) else Preset.parse(dict(p)) for name, p in presets.items()}
    return [name for name, p in parsed.items() if p.mask is not None and p.mask.source == "attention"]


def choose_taps(
    source: ClassifierSource,
    blocks: Blocks,
    presets: Mapping[str, Preset | Mapping[str, Any]],
    image: tuple[int, int, int] | None = None,
) -> Taps | None:
    """The blocks to tap; those of a family only if they give maps for images of this size.

    Raises:
        ExportError: a preset needs a mask, and the classifier's family is unknown or the blocks were switched off.
    """
    masked = _attended(presets)
    if blocks == "none":
        if masked:
            raise ExportError(
                f"preset {masked[0]!r} needs an attention mask, so blocks cannot be 'none'", code="E-taps-needed"
            )
        return None
    if blocks != "auto":
        named = (blocks,) if isinstance(blocks, str) else tuple(blocks)
        modules = dict(source.model.named_modules())
        # A library's names are those of its own network, which sits inside the preprocessing.
        plain = [n.partition("@")[0] for n in named]
        inner = [
            n if p in modules or f"network.{p}" not in modules else f"network.{n}"
            for n, p in zip(named, plain, strict=True)
        ]
        return named_taps(source.model, inner)
    try:
        taps = find_taps(source.model)
        if image is not None:
            with suppress(
                RuntimeError, ValueError
            ):  # images that it does not take: `check_classifier` has the sentence
                preview_taps(source, taps, image)
        return taps
    except ExportError as error:
        if masked:
            raise ExportError(
                f"preset {masked[0]!r} needs an attention mask: {error} (--blocks)", code="E-taps-needed"
            ) from None
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
