"""The user's own network as the task of a bundle: its outputs in the form that its kind asks for, and checked.

See `edgepure.bundle.task` for the three kinds. The network takes images [B, C, H, W] in [0, 1] and gives a tensor, a
tuple, or a dictionary (or an object with attributes) of them, batch first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional as F

from edgepure.bundle.task import MOST_FRAME, TASK_OUTPUTS, TaskEntry, TaskKind
from edgepure.errors import ExportError, words_of
from edgepure.images.spec import ImageSpec
from edgepure.validation import first_fault

from .checks import check_alone
from .detector_checks import check_detector


@dataclass(frozen=True)
class Task:
    """A task to export.

    Attributes:
        kind: what it finds.
        network: images [B, C, H, W] in [0, 1] -> its outputs, preprocessing inside.
        classes: names; None: numbers, as many as the outputs have.
        outputs: where the outputs are found: role to name (of a dictionary) or position (of a tuple). Roles that are
            left out are found under their own name, or in their order. A detector may give ``labels`` [B, N] and
            ``scores`` [B, N] of its best class in place of ``scores`` [B, N, K]; then it needs ``classes``.
        settings: ``score``, ``overlap`` and ``most`` of a detector, see `TaskEntry`.
        frame: height and width of the images that the network takes, larger than those of the diffusion model, which
            purifies them by tiles; None: those of the diffusion model.
    """

    kind: TaskKind
    network: nn.Module
    classes: Sequence[str] | None = None
    outputs: Mapping[str, str | int] = field(default_factory=dict)
    settings: Mapping[str, float] = field(default_factory=dict)
    frame: tuple[int, int] | None = None

    def image(self, image: ImageSpec) -> ImageSpec:
        """Size of the images that it takes, beside a diffusion model of this size.

        Raises:
            ExportError: frames are smaller, or no frames (``E-task-frame-size``).
        """
        if self.frame is None:
            return image
        sides = self.frame if isinstance(self.frame, (tuple, list)) else ()
        if len(sides) != 2 or not all(type(n) is int and 1 <= n <= MOST_FRAME for n in sides):
            raise ExportError(
                f"the task's frame is {self.frame!r:.80}, expected height and width in pixels, up to {MOST_FRAME}",
                code="E-task-frame-size",
            )
        height, width = sides
        if height < image.height or width < image.width:
            raise ExportError(
                f"the task takes frames of {width} x {height} pixels (width x height), and the diffusion model images "
                f"of {image.width} x {image.height}: a frame is at least as large",
                code="E-task-frame-size",
            )
        return image.model_copy(update={"height": height, "width": width})


class TaskModule(nn.Module):
    """image [B, C, H, W] in [0, 1] -> the outputs of the kind, in the order of `TASK_OUTPUTS`."""

    def __init__(self, task: Task, size: tuple[int, int]) -> None:
        super().__init__()
        if task.kind not in TASK_OUTPUTS:
            raise ExportError(
                f"task {task.kind!r} is unknown; choose {', '.join(TASK_OUTPUTS)}, or classification",
                code="E-task-kind",
            )
        roles = {*TASK_OUTPUTS[task.kind], *(("labels",) if task.kind == "detection" else ())}
        if strange := sorted(set(task.outputs) - roles):
            raise ExportError(
                f"the task {task.kind!r} has no output {strange[0]!r}; it has {', '.join(sorted(roles))}",
                code="E-task-output",
            )
        self.network, self.size, self.kind = task.network, size, task.kind
        self.places = dict(task.outputs)
        self.count = None if task.classes is None else len(task.classes)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the outputs."""
        return TASK_OUTPUTS[self.kind]

    def forward(self, image: Tensor) -> Any:
        found = self.network(image)
        if self.kind == "segmentation":
            logits = self._tensor(found, "logits", 0, 4)
            if tuple(logits.shape[2:]) != self.size:
                logits = F.interpolate(logits, size=self.size, mode="bilinear", align_corners=False)
            return logits
        if self.kind == "embedding":
            vector = self._tensor(found, "vector", 0, None)
            return vector.flatten(1)
        boxes = self._tensor(found, "boxes", 0, 3)
        scores = self._tensor(found, "scores", 1, None)
        if scores.ndim == 2:
            labels = self._tensor(found, "labels", 2, 2)
            if self.count is None:
                raise ExportError(
                    "a detector that gives labels does not tell how many classes there are; name them (--classes)",
                    code="E-classes",
                )
            chosen = labels[..., None] == torch.arange(self.count, dtype=labels.dtype)
            scores = scores[..., None] * chosen.to(scores.dtype)
        return boxes, scores

    def _tensor(self, found: Any, role: str, position: int, axes: int | None) -> Tensor:
        value = _pick(found, self.places.get(role), role, position)
        if not isinstance(value, Tensor) or (axes is not None and value.ndim != axes):
            got = "nothing" if value is None else _words(value)
            raise ExportError(
                f"the task's network gives {got} for {role!r} (it gives {_words(found)}), expected "
                f"{'a tensor' if axes is None else f'a tensor of {axes} axes'}, batch first ({_ASKED[self.kind]}); say "
                "where it is found (outputs, --task-output ROLE=NAME), or wrap the network",
                code="E-task-output",
            )
        if role == "labels":
            return value
        if not value.is_floating_point():
            raise ExportError(
                f"the task's network gives {value.dtype} for {role!r}, expected real numbers: votes need to know how "
                "sure it is, so give what it chooses by (logits in place of a label map)",
                code="E-task-output",
            )
        return value.to(torch.float32)

    def check_labels(self, images: Tensor) -> None:
        """Raise ExportError if a detector labels images [B, C, H, W] in [0, 1] beyond the classes that were named."""
        with torch.no_grad():
            found = self.network(images)
            if self.count is None or self._tensor(found, "scores", 1, None).ndim != 2:
                return
            labels = self._tensor(found, "labels", 2, 2)
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= self.count:
            raise ExportError(
                f"the detector's labels go from {low} to {high}, and {self.count} classes are named, 0 to "
                f"{self.count - 1}; name all of them, the background too where it has a number (--classes)",
                code="E-classes",
            )


_ASKED = {
    "detection": "boxes [B, N, 4] and scores [B, N, K]",
    "segmentation": "logits [B, K, h, w]",
    "embedding": "vector [B, D]",
}


def _words(found: Any) -> str:
    """What a network gives, in words."""
    if isinstance(found, Mapping):
        return ", ".join(f"{name!r}: {_words(value)}" for name, value in found.items()) or "an empty dictionary"
    if isinstance(found, (tuple, list)):
        return f"a {type(found).__name__} of {'; '.join(_words(value) for value in found) or 'nothing'}"
    return f"{list(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"


def _pick(found: Any, place: str | int | None, role: str, position: int) -> Any:
    """An output where the user says, else by its role, or by its position where it has no name, or where there is no
    other; None: not there."""
    if isinstance(found, Mapping):
        if place is None and role not in found and len(found) == 1 and position == 0:
            return next(iter(found.values()))
        return found.get(role if place is None else place)
    if isinstance(found, (tuple, list)):
        names = getattr(found, "_fields", ())
        if (name := str(role if place is None else place)) in names:
            return getattr(found, name)
        if place is not None and not str(place).isdigit():
            return None
        index = position if place is None else int(place)
        return found[index] if index < len(found) else None
    if isinstance(found, Tensor):
        return found if position == 0 else None
    return getattr(found, str(role if place is None else place), None)


def task_entry(module: TaskModule, task: Task, images: Tensor, frame: tuple[int, int] | None = None) -> TaskEntry:
    """Run a task on images [B, C, H, W] in [0, 1], and say how the manifest describes it. ``frame``: their size, where
    it is not that of the diffusion model.

    Raises:
        ExportError: it fails, or does not give what its kind asks for, finite and image by image.
    """
    outputs = _run(module, images)
    entry = _entry(task, _classes(task, outputs), frame)
    shapes = tuple((name, tuple(value.shape[1:])) for name, value in outputs.items())
    fault = entry.fault(shapes, (int(images.shape[2]), int(images.shape[3])))
    if fault is not None or any(len(value) != len(images) for value in outputs.values()):
        raise ExportError(
            f"the task's network does not fit {task.kind!r}: {fault or 'its batch is another one'}; expected "
            f"{entry.wanted}",
            code="E-task-output",
        )
    if task.kind == "detection":
        check_detector(outputs, images)
        module.check_labels(images)
    for name, value in outputs.items():
        check_alone(
            f"task ({name})",
            lambda n=name: _run(module, images[:1])[n],  # type: ignore[misc]
            lambda n=name: _run(module, images)[n],  # type: ignore[misc]
            value,
        )
    return entry


def _run(module: TaskModule, images: Tensor) -> dict[str, Tensor]:
    with torch.no_grad():
        try:
            found = module(images)
        except ExportError:
            raise
        except Exception as error:  # any user code
            raise ExportError(
                f"the task's network fails on images {list(images.shape)}: {type(error).__name__}: "
                f"{words_of(error)}; its preprocessing (resizing included) must be part of the module",
                code="E-network-fails",
            ) from error
    values = found if isinstance(found, tuple) else (found,)
    outputs = dict(zip(module.names, values, strict=True))
    for name, value in outputs.items():
        if not bool(torch.isfinite(value).all()):
            raise ExportError(
                f"the task's network gives NaN or infinite {name} for ordinary images in [0, 1]; check its weights",
                code="E-network-finite",
            )
    return outputs


def _classes(task: Task, outputs: Mapping[str, Tensor]) -> tuple[str, ...]:
    if task.kind == "embedding":
        return tuple(task.classes or ())
    if task.kind == "segmentation" and outputs["logits"].shape[1] == 1:
        raise ExportError(
            "the segmenter gives one number for each pixel, expected one for each class; of a network that says object "
            "or not by a logit z, give torch.cat([torch.zeros_like(z), z], 1)",
            code="E-task-output",
        )
    count = int(outputs["logits"].shape[1] if task.kind == "segmentation" else outputs["scores"].shape[2])
    if task.classes is None:
        return tuple(str(n) for n in range(count))
    if len(task.classes) != count:
        raise ExportError(
            f"{len(task.classes)} class names were given, but the task's network tells {count} apart", code="E-classes"
        )
    return tuple(task.classes)


def _entry(task: Task, classes: tuple[str, ...], frame: tuple[int, int] | None) -> TaskEntry:
    known = {"score", "overlap", "most"} if task.kind == "detection" else set()
    if strange := sorted(set(task.settings) - known):
        raise ExportError(
            f"the task {task.kind!r} has no setting {strange[0]!r}; it has {', '.join(sorted(known)) or 'none'}",
            code="E-task-settings",
        )
    data = {
        "kind": task.kind,
        "classes": classes,
        "outputs": {role: str(place) for role, place in task.outputs.items()},
        "frame": frame,
        **task.settings,
    }
    try:
        return TaskEntry.model_validate(data)
    except ValidationError as error:
        fault = first_fault(error, data, TaskEntry.model_json_schema)
        raise ExportError(f"task: {fault}", code="E-task-settings") from None
