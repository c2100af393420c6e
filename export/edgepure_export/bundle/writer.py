"""Write a bundle: export every graph, prove parity, record the self-test. It appears whole, or not at all."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from os import PathLike
from pathlib import Path
from typing import Any, Literal, TypeVar

import onnx
import torch
from pydantic import BaseModel, ValidationError
from torch import nn

from edgepure.bundle.bundle import Bundle, hash_files, write_manifest
from edgepure.bundle.entries import AttentionEntry, Provenance
from edgepure.bundle.manifest import Manifest
from edgepure.bundle.names import SELFTEST_FILE
from edgepure.bundle.selftest import MAX_SELFTEST_BYTES
from edgepure.errors import ConfigError, ExportError
from edgepure.files.atomic import write_npz
from edgepure.files.folders import atomic_directory, real_path
from edgepure.images.spec import ImageSpec
from edgepure.methods.presets import Preset
from edgepure.rows.schedule import ScheduleSpec, schedule_from
from edgepure.types import Progress
from edgepure.validation import fault_code, first_fault

from ..graphs.attention import BlockTransform, MaskModule
from ..graphs.tap_families import Taps
from ..graphs.to_onnx import evaluating
from ..twin.reference import TorchReference
from . import after_export as parity
from .cases import Cases
from .checks import check_backbone, check_classifier, check_module, check_placement, check_unet, size_multiple
from .graph_files import bundle_parts, compare_parts, export_parts, graph_entry
from .presets import check_presets, parsed_presets
from .recordings import record_frame, record_pipelines
from .settings import ExportSettings
from .tasks import Task, TaskModule, task_entry

#: How many images the recorded purifications have.
SELFTEST_BATCH = 2


def export_bundle(
    classifier: nn.Module | None,
    unet: nn.Module,
    out: str | PathLike[str],
    *,
    image_size: int | tuple[int, int],
    blocks: Sequence[str] | Taps | None = None,
    backbone: nn.Module | None = None,
    task: Task | None = None,
    presets: Mapping[str, Preset | Mapping[str, Any]] | None = None,
    sample_images: Any = None,
    settings: ExportSettings | None = None,
    on_progress: Progress | None = None,
    **changes: Any,
) -> Path:
    """Export a diffusion model, and a classifier or a backbone with it, to a bundle.

    Args:
        classifier: images [B, C, H, W] float32 in [0, 1] -> logits [B, N]; its own preprocessing inside. None: the
            bundle purifies, and gives no labels.
        unet: ``unet(x [B, C, H, W] in model range, t [B] float) -> epsilon [B, C, H, W]``, or [B, 2C, H, W] with a
            learned-range variance. `edgepure_export.networks.parametrisation` converts other networks.
        out: the directory to make.
        image_size: height and width, or one number for both.
        blocks: modules of the classifier, or of the backbone, to tap for the attention mask; None: no mask graph.
        backbone: a network of images as the classifier's (a detector's, a segmenter's) that is tapped where there is no
            classifier. What it gives is not used. None: that of the task, if blocks are named.
        task: what is done with purified images in place of classifying them.
        presets: by name, `Preset` or plain data; None: a DDIM of 10 calls, and a heterogeneous one if there are blocks.
        sample_images: [B, C, H, W] in [0, 1], for parity and self-test; None: smooth random ones.
        settings: everything else, see `ExportSettings`; None: their defaults.
        on_progress: called with (share done, what is being done).
        changes: settings by name, in place of those of ``settings``: ``channels=1``, ``overwrite=True``.

    Returns:
        The directory of the finished bundle.

    Raises:
        ExportError: a network is not what it should be, cannot be exported, or differs from its graph by more than the
            tolerance. ConfigError: a preset or the schedule is wrong. EdgepureError: the target exists, or cannot be
            written. In every case, Ctrl-C included, nothing is left behind.
    """
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    chosen = (settings or ExportSettings()).changed(changes)
    image = _checked(ImageSpec, {"channels": chosen.channels, "height": height, "width": width}, "image size")
    schedule, classes, default_preset = chosen.schedule, chosen.classes, chosen.default_preset
    mask_input = chosen.mask_input or "own"
    if isinstance(schedule, Mapping):
        schedule = _checked(ScheduleSpec, schedule, "schedule")
    noise = schedule_from(schedule)
    parsed = parsed_presets(presets, noise, has_blocks=blocks is not None)
    if default_preset is not None and default_preset not in parsed:
        raise ExportError(
            f"default_preset {default_preset!r} is not among the presets ({', '.join(parsed)}); choose one of these",
            code="E-preset-default-unknown",
        )
    report: Progress = on_progress or (lambda share, words: None)
    networks = _networks(classifier, backbone, unet, blocks, task)
    classes = classes if task is None else None
    answered = image if task is None else task.image(image)
    task_module = None if task is None else TaskModule(task, (answered.height, answered.width))
    target = Path(out)
    with atomic_directory(target, chosen.overwrite) as folder, evaluating(*networks.values()):
        report(0.0, "checking the networks")
        for what, network in networks.items():
            check_placement(what, network)
        cases = Cases(image, noise, parsed, sample_images, frames=answered)
        count = 0
        if classifier is not None:
            count = check_classifier(classifier, cases.images(2), None if classes is None else len(classes))
        elif classes:
            raise ExportError(
                f"{len(classes)} class names were given, and no classifier; leave them out", code="E-classes"
            )
        predicts_variance = check_unet(unet, image, len(noise), trained=chosen.check_epsilon)
        learned = predicts_variance if chosen.learned_variance is None else chosen.learned_variance
        if learned and not predicts_variance:
            raise ExportError(
                f"learned_variance needs a network with {2 * image.channels} output channels, not {image.channels}",
                code="E-learned-variance-channels",
            )
        check_presets(parsed, noise, image, learned)
        multiple = size_multiple(unet, image) if chosen.any_size else None
        other = None if multiple is None else (height + multiple, width + 2 * multiple)
        cases = Cases(image, noise, parsed, sample_images, other, answered)
        entry = None
        if task is not None and task_module is not None:
            frame = None if answered == image else (answered.height, answered.width)
            entry = task_entry(task_module, task, cases.frames(2), frame)
        tapped = classifier or backbone or (None if task is None else task.network)
        with _tapped(tapped, blocks, image, chosen.norm_p, mask_input, chosen.block_transforms) as mask_module:
            if classifier is None and mask_module is not None:
                check_backbone(mask_module, cases.images(2))
            parts = bundle_parts(classifier, unet, mask_module, learned, task_module, multiple)
            graphs = export_parts(parts, cases, folder, count, chosen.opset, report)
            results, vectors = compare_parts(parts, cases, folder, chosen.tolerance, chosen.threads, report)
            reference = TorchReference(
                unet, schedule=noise, classifier=classifier, mask_module=mask_module, checkpointing=False,
                task=task_module, names=() if task_module is None else task_module.names, framed=answered != image,
            )  # fmt: skip
            attention = None
            if mask_module is not None:
                attention = AttentionEntry(blocks=mask_module.blocks, norm_p=chosen.norm_p, input=mask_input)
            vectors.update(
                record_pipelines(
                    reference,
                    parsed,
                    cases.images(SELFTEST_BATCH),
                    chosen.selftest_calls,
                    lambda key, done: report(0.9 + 0.09 * done / len(parsed), f"recording {key}"),
                )
            )
            room = MAX_SELFTEST_BYTES - sum(array.nbytes for array in vectors.values())
            if room < 0:
                raise ExportError(
                    f"what a bundle records of its graphs takes {(MAX_SELFTEST_BYTES - room) >> 20} MiB, at most "
                    f"{MAX_SELFTEST_BYTES >> 20} are read; give a task smaller frames (--task-frame) or fewer classes",
                    code="E-export-selftest",
                )
            report(0.99, "writing")
            write_npz(folder / SELFTEST_FILE, vectors)
            manifest = Manifest.from_data(
                {
                    "name": chosen.name or real_path(target).name,
                    "image": image,
                    "classes": tuple(classes) if classes is not None else tuple(str(i) for i in range(count)),
                    "task": entry,
                    "schedule": noise.spec,
                    "graphs": {key: graph_entry(graph) for key, graph in graphs.items()},
                    "attention": attention,
                    "learned_variance": learned,
                    "any_size": None
                    if multiple is None
                    else {"multiple": multiple, "checked": ((height, width), other)},
                    "presets": parsed,
                    "default_preset": default_preset or next(iter(parsed)),
                    "calibration": chosen.calibration,
                    "provenance": _provenance(networks, chosen, results),
                    "files": hash_files(folder),
                }
            )
            write_manifest(folder, manifest)
            if answered != image:
                report(0.99, "recording a frame")
                vectors.update(record_frame(Bundle.open(folder), {p.name: p for p in parts}, room))
                write_npz(folder / SELFTEST_FILE, vectors)
                write_manifest(folder, manifest.model_copy(update={"files": hash_files(folder)}))
        Bundle.open(folder).selftest()  # whatever a reader would refuse is refused now
    report(1.0, "done")
    return target


def _networks(
    classifier: nn.Module | None,
    backbone: nn.Module | None,
    unet: nn.Module,
    blocks: Sequence[str] | Taps | None,
    task: Task | None,
) -> dict[str, nn.Module]:
    """Those that are given, by what messages call them; they fit together."""
    if classifier is not None and task is not None:
        raise ExportError(
            "a classifier and a task were given, and a bundle does one thing with purified images; export two, or give "
            "the classifier as a backbone for its mask",
            code="E-export-networks",
        )
    if classifier is not None and backbone is not None:
        raise ExportError(
            "a classifier and a backbone were given, and only one network can be tapped for the mask; leave one of "
            "them out",
            code="E-export-networks",
        )
    if blocks is not None and classifier is None and backbone is None and task is None:
        raise ExportError(
            "blocks were named, and there is no classifier or backbone that has them; give one, or leave them out",
            code="E-export-networks",
        )
    if backbone is not None and blocks is None:
        raise ExportError(
            "a backbone is there for its blocks, and none were named; name them, or leave it out",
            code="E-export-networks",
        )
    given = {
        "classifier": classifier,
        "backbone": backbone,
        "task's network": None if task is None else task.network,
        "diffusion network": unet,
    }
    found = {what: network for what, network in given.items() if network is not None or what == "diffusion network"}
    for what, network in found.items():
        check_module(what, network)
    return found  # type: ignore[return-value]  # `check_module` has refused what is no module


M = TypeVar("M", bound=BaseModel)


def _checked(kind: type[M], data: Mapping[str, Any], what: str) -> M:
    try:
        return kind.model_validate(dict(data))
    except ValidationError as error:
        raise ConfigError(
            f"{what}: {first_fault(error, data, kind.model_json_schema)}", code=fault_code(error, "E-export-settings")
        ) from None


@contextmanager
def _tapped(
    network: nn.Module | None,
    blocks: Sequence[str] | Taps | None,
    image: ImageSpec,
    norm_p: float,
    mask_input: Literal["own", "official"],
    transforms: Mapping[str, BlockTransform] | None,
) -> Iterator[MaskModule | None]:
    """The mask module for a while; afterwards the caller's network has no hooks of ours."""
    if blocks is None or network is None:
        yield None
        return
    size = (image.height, image.width)
    module = MaskModule(network, blocks, size, norm_p=norm_p, input=mask_input, transforms=transforms)
    try:
        zeros = torch.zeros(2)
        with torch.no_grad():
            module.eval()(torch.zeros((2, *image.shape)), zeros, zeros, zeros)  # a block that gives no map says so now
        yield module
    finally:
        module.close()


def _provenance(
    networks: Mapping[str, nn.Module], settings: ExportSettings, results: Mapping[str, parity.GraphParity]
) -> Provenance:
    kinds = {what: type(network).__name__ for what, network in networks.items()}
    try:
        version = importlib.metadata.version("edgepure")
    except importlib.metadata.PackageNotFoundError:  # run from a source tree
        version = "unknown"
    return Provenance(
        created=date.today(),
        edgepure_version=version,
        torch_version=str(torch.__version__),
        onnx_version=str(onnx.__version__),
        classifier=settings.classifier_source or kinds.get("classifier"),
        backbone=settings.backbone_source or kinds.get("backbone"),
        task=settings.task_source or kinds.get("task's network"),
        diffusion=settings.diffusion_source or kinds["diffusion network"],
        parity={key: result.max_abs for key, result in results.items()},
    )
