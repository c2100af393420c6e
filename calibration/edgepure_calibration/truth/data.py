"""Images with what is true of them: classes of pixels, boxes, or whose vector is whose."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgepure.bundle.manifest import Manifest
from edgepure.bundle.task import TaskKind
from edgepure.errors import ConfigError
from edgepure.files.npz import Npz
from edgepure.images.dataset import LabelledImages, load_labelled
from edgepure.images.load import Resize
from edgepure.purify.arguments import check_images
from edgepure.purify.purifier import Purifier
from edgepure.types import Float32


@dataclass(frozen=True, eq=False)
class Truth:
    """Images and their truth.

    Attributes:
        images: ``[N, C, H, W]`` float32 in [0, 1].
        labels: of a segmenter ``[N, H, W]``, the class of each pixel, -1 for those that do not count; of a detector
            ``[N, T]``, the class of each box, -1 for none; of an embedding ``[N]``, who it is.
        boxes: of a detector ``[N, T, 4]`` float32, in pixels; else None.
        own: the truth is what the task itself says of the images without an attack, and without purification.
    """

    images: Float32
    labels: NDArray[np.int64]
    boxes: Float32 | None = None
    own: bool = False

    def __len__(self) -> int:
        return len(self.images)

    @property
    def sha256(self) -> str:
        """Hash of all of it, lower-case hexadecimal."""
        found = hashlib.sha256()
        for array in (self.images, self.labels, self.boxes):
            if array is not None:
                found.update(repr(array.shape).encode() + np.ascontiguousarray(array).tobytes())
        return found.hexdigest()

    def draw(self, count: int, seed: int = 0) -> NDArray[np.intp]:
        """Ascending positions of so many images, drawn without replacement; equal arguments draw the same."""
        return np.sort(np.random.default_rng(seed).permutation(len(self))[:count])

    def pick(self, index: Sequence[int] | NDArray[np.intp]) -> Truth:
        """The images at these positions."""
        chosen = np.asarray(index, np.intp)
        boxes = None if self.boxes is None else self.boxes[chosen]
        return replace(self, images=self.images[chosen], labels=self.labels[chosen], boxes=boxes)


def load_data(source: str | PathLike[str], manifest: Manifest, *, resize: Resize = False) -> LabelledImages | Truth:
    """Read images for a bundle with a task, and what is true of them, if the data say it.

    Args:
        source: a folder of images, which says nothing; or an ``.npz`` (``file.npz:NAME`` takes the images from the
            array NAME) with `images`, and `labels` (and `boxes`) as in `Truth`.
        manifest: of the bundle.
        resize: as for `edgepure.images.load_images`; only of images without a truth, whose pixels it would move.

    Raises:
        ImageError: it cannot be read, or holds no images of the bundle's size.
        ConfigError: labels or boxes are not as the task asks for, or images with a truth would be resized
            (``E-task-data``).
    """
    found = load_labelled(source, manifest.task_image, (), resize=resize)
    file = re.match(r"(.+\.npz)(:\w+)?$", str(source))
    if file is None:
        return found
    with Npz(Path(file.group(1))) as arrays:
        true = {name: arrays[name] for name in ("labels", "boxes") if name in arrays.names}
    if "labels" not in true:
        if true:
            raise ConfigError(
                f"{source} has `boxes` and no `labels`, which say the class of each (-1 for none)", code="E-task-data"
            )
        return found
    if resize:
        raise ConfigError(
            f"{source} says what is true of its pixels, which a resized image would not have; resize the images and "
            "their truth before",
            code="E-task-data",
        )
    return checked_truth(found.images, true["labels"], true.get("boxes"), manifest)


def load_truth(source: str | PathLike[str], purifier: Purifier) -> Truth:
    """`load_data` with a truth: without labels the task's own answers to the images. Raises as it does."""
    found = load_data(source, purifier.bundle.manifest)
    return found if isinstance(found, Truth) else own_truth(found.images, purifier)


def checked_truth(images: Float32, labels: Any, boxes: Any, manifest: Manifest, *, own: bool = False) -> Truth:
    """Raises ConfigError (``E-task-data``) if this is no truth of the bundle's task, or nothing of it counts."""
    task, image = manifest.require_task(), manifest.task_image
    count, labels = len(images), np.asarray(labels)
    shapes: dict[str, tuple[int | str, ...]] = {
        "segmentation": (count, image.height, image.width), "detection": (count, "T"), "embedding": (count,),
    }  # fmt: skip
    wanted = shapes[task.kind]
    fits = labels.ndim == len(wanted) and all(w in ("T", n) for w, n in zip(wanted, labels.shape, strict=True))
    if labels.dtype.kind not in "iu" or not fits:
        raise ConfigError(
            f"`labels` is {labels.dtype} {list(labels.shape)}, expected integers {list(wanted)} for {task.kind}",
            code="E-task-data",
        )
    labels = labels.astype(np.int64)
    if task.kind == "embedding" and labels.min() < 0:
        raise ConfigError(f"`labels` go from {labels.min()}, expected who it is, from 0", code="E-task-data")
    if task.kind != "embedding" and labels.size and not -1 <= labels.min() <= labels.max() < len(task.classes):
        raise ConfigError(
            f"`labels` go from {labels.min()} to {labels.max()}, but the task has the classes 0 to "
            f"{len(task.classes) - 1} (and -1 for what does not count)",
            code="E-task-data",
        )
    found = Truth(images, labels, None if task.kind != "detection" else _checked_boxes(labels, boxes), own)
    check_something_counts(found, task.kind)
    return found


def _checked_boxes(labels: NDArray[np.int64], boxes: Any) -> Float32:
    if boxes is None:
        raise ConfigError(f"there are no `boxes` {[*labels.shape, 4]} beside `labels`", code="E-task-data")
    boxes = np.asarray(boxes)
    if boxes.shape != (*labels.shape, 4) or boxes.dtype.kind not in "fiu" or not np.isfinite(boxes).all():
        raise ConfigError(
            f"`boxes` is {boxes.dtype} {list(boxes.shape)}, expected finite numbers {[*labels.shape, 4]}: left, top, "
            "right, bottom in pixels",
            code="E-task-data",
        )
    empty = (labels >= 0) & (boxes[..., 2:] <= boxes[..., :2]).any(-1)
    if empty.any():
        image, box = (int(n) for n in np.argwhere(empty)[0])
        raise ConfigError(
            f"{int(empty.sum())} of {int((labels >= 0).sum())} `boxes` end before they begin (the first is box {box} "
            f"of image {image}: {boxes[image, box].tolist()}), expected left, top, right, bottom in pixels, not "
            "centres or corners with sizes",
            code="E-task-data",
        )
    return np.asarray(boxes, np.float32)


def check_something_counts(truth: Truth, kind: TaskKind) -> None:
    """Raise ConfigError (``E-task-data``) if every answer to these images would be counted alike."""
    if kind != "embedding":
        enough = bool((truth.labels >= 0).any())
    elif truth.own:  # every image is looked for among all of them
        enough = len(truth) > 1
    else:
        enough = bool((np.unique(truth.labels, return_counts=True)[1] > 1).any())
    if not enough:
        expected = {
            "segmentation": "one pixel with a class",
            "detection": "one box in one of them",
            "embedding": "two of the same label; without labels, two",
        }[kind]
        raise ConfigError(
            f"nothing can be counted with these {len(truth)} images, expected at least {expected}", code="E-task-data"
        )


def own_truth(images: Float32, purifier: Purifier) -> Truth:
    """What the task says of images as they are, for truth; of an embedding every image is its own."""
    task = purifier.bundle.manifest.require_task()
    answers = purifier.predict(images, purify=False)
    if task.kind == "segmentation":
        return Truth(images, np.stack([a.label_map for a in answers]), own=True)
    if task.kind == "embedding":
        return Truth(images, np.arange(len(images)), own=True)
    most = max(1, *(len(a.labels) for a in answers))
    labels, boxes = np.full((len(images), most), -1, np.int64), np.zeros((len(images), most, 4), np.float32)
    for i, answer in enumerate(answers):
        labels[i, : len(answer.labels)], boxes[i, : len(answer.labels)] = answer.labels, answer.boxes
    return Truth(images, labels, boxes, own=True)


def checked(truth: Truth, manifest: Manifest) -> Truth:
    """A truth that somebody made. Raises as `checked_truth`, or ImageError."""
    check_images(truth.images, manifest.task_image.shape)
    return checked_truth(truth.images, truth.labels, truth.boxes, manifest, own=truth.own)
