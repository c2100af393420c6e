"""Images with what is true of them: classes of pixels, boxes, or whose vector is whose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgepure.bundle.task import TaskEntry
from edgepure.errors import ConfigError, ImageError
from edgepure.files.npz import ArrayError, Npz
from edgepure.images.load import load_images
from edgepure.images.spec import ImageSpec
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

    def pick(self, index: Sequence[int] | NDArray[np.intp]) -> Truth:
        """The images at these positions."""
        chosen = np.asarray(index, np.intp)
        boxes = None if self.boxes is None else self.boxes[chosen]
        return replace(self, images=self.images[chosen], labels=self.labels[chosen], boxes=boxes)


def load_truth(path: str | PathLike[str], purifier: Purifier) -> Truth:
    """Read an ``.npz`` with `images`, and `labels` (and `boxes`) as in `Truth`. Without labels the task's own answers
    to
    the images are the truth.

    Raises:
        ImageError: it cannot be read, or holds no images of the bundle's size.
        ConfigError: labels or boxes are not as the task asks for (``E-task-data``).
    """
    place = Path(path)
    try:
        with Npz(place) as arrays:
            if "images" not in arrays.names:
                raise ImageError(
                    f"{place} has no array `images`; it has {', '.join(sorted(arrays.names)) or 'none'}",
                    code="E-image-missing",
                )
            found = {name: arrays[name] for name in ("images", "labels", "boxes") if name in arrays.names}
    except (ArrayError, OSError) as error:
        raise ImageError(f"{place} cannot be read as .npz ({error})", code="E-image-unreadable") from None
    images = load_images(found["images"], purifier.bundle.manifest.image).images
    if "labels" not in found:
        return own_truth(images, purifier)
    return checked_truth(images, found["labels"], found.get("boxes"), purifier.bundle.manifest)


def checked_truth(images: Float32, labels: Any, boxes: Any, manifest: Any) -> Truth:
    """Raises ConfigError (``E-task-data``) if this is no truth of the bundle's task."""
    task: TaskEntry = manifest.require_task()
    image: ImageSpec = manifest.image
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
    if task.kind != "embedding" and labels.size and not -1 <= labels.min() <= labels.max() < len(task.classes):
        raise ConfigError(
            f"`labels` go from {labels.min()} to {labels.max()}, but the task has the classes 0 to "
            f"{len(task.classes) - 1} (and -1 for what does not count)",
            code="E-task-data",
        )
    if task.kind != "detection":
        return Truth(images, labels)
    boxes = np.asarray(boxes)
    if boxes.shape != (*labels.shape, 4) or boxes.dtype.kind not in "fiu" or not np.isfinite(boxes).all():
        raise ConfigError(
            f"`boxes` is {boxes.dtype} {list(boxes.shape)}, expected finite numbers {[*labels.shape, 4]}: left, top, "
            "right, bottom in pixels",
            code="E-task-data",
        )
    return Truth(images, labels, boxes.astype(np.float32))


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
