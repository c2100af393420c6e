"""Images with their true classes, as calibration, quantization, tuning and evaluation take them.

Two forms are read:

- an ``.npz`` file with the array ``images`` (uint8 ``[N, H, W, C]`` or float ``[N, C, H, W]`` in [0, 1]) and, if there
  are labels, ``labels`` (integers ``[N]``, in the order of the bundle's classes). ``file.npz:NAME`` takes the images
  from the array ``NAME`` instead;
- a folder: one sub-folder for each class, named as the class (or its index); or image files without such folders, which
  are then unlabelled. Every file in it counts, in sub-folders too, whatever its name; what is hidden is left out.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, ImageError
from ..files.npz import ArrayError, Npz
from ..machine.memory import available_memory
from .folders import image_files
from .load import Order, Resize, load_images
from .spec import ImageSpec


@dataclass(frozen=True)
class LabelledImages:
    """A data set in memory.

    Attributes:
        images: ``[N, C, H, W]`` float32 in [0, 1].
        labels: ``[N]`` int64, the true classes; None: unlabelled.
        names: of each image, a path or a position.
    """

    images: NDArray[np.float32]
    labels: NDArray[np.int64] | None
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def sha256(self) -> str:
        """Hash of images and labels, lower-case hexadecimal."""
        digest = hashlib.sha256(repr(self.images.shape).encode())
        digest.update(self.images.tobytes())
        if self.labels is not None:
            digest.update(self.labels.tobytes())
        return digest.hexdigest()

    def pick(self, indices: Sequence[int] | NDArray[np.intp]) -> LabelledImages:
        """The images at these positions."""
        index = np.asarray(indices, np.intp)
        labels = None if self.labels is None else self.labels[index]
        return LabelledImages(self.images[index], labels, tuple(self.names[i] for i in index))

    def draw(self, count: int, seed: int = 0) -> NDArray[np.intp]:
        """Ascending positions of ``count`` images, drawn without replacement, every class in proportion if there are
        labels. Equal arguments draw the same images.

        Raises:
            ConfigError: there are not that many images.
        """
        if not 1 <= count <= len(self):
            raise ConfigError(
                f"{count} images were asked for, but the data hold {len(self)}; ask for 1 to {len(self)}",
                code="E-config-count",
            )
        generator = np.random.default_rng(seed)
        shuffled = generator.permutation(len(self))
        if self.labels is not None:
            # Sorted by class, then every (N / count)-th: each class gets its share, rounded by chance.
            by_class = shuffled[np.argsort(self.labels[shuffled], kind="stable")]
            spacing = len(self) / count
            shuffled = by_class[((np.arange(count) + generator.random()) * spacing).astype(np.intp)]
        return np.sort(shuffled[:count])

    def take(self, count: int, seed: int = 0) -> LabelledImages:
        """The images of `draw`. Raises as it does."""
        return self.pick(self.draw(count, seed))


def load_labelled(
    path: str | PathLike[str],
    image: ImageSpec,
    classes: Sequence[str],
    *,
    need_labels: bool = False,
    resize: Resize = False,
    order: Order = "rgb",
) -> LabelledImages:
    """Read a data set; see the module's text for its forms.

    Args:
        path: ``.npz`` file (``file.npz:NAME``), or a folder.
        image: size of the bundle's images.
        classes: names of the bundle's classes; none without a classifier, and then no labels are read.
        need_labels: refuse data without labels.
        resize, order: what is done with images of another size, and the order of the colours in arrays
            (`edgepure.images.load_images`).

    Raises:
        ImageError: nothing there, not of these forms, or an image of the wrong size, dtype or range.
        ConfigError: labels are needed and missing, are no classes of the bundle, or are not one per image.
    """
    text = str(path)
    if not text:  # as a path it would be the current folder
        raise ImageError("the path of the images is empty; give an .npz file or a folder", code="E-data-path-empty")
    match = re.fullmatch(r"(.+\.npz)(?::(\w+))?", text)
    place = Path(match.group(1) if match else text)
    if not place.exists():
        raise ImageError(f"there are no images at {place}: it does not exist; check the path", code="E-data-missing")
    data = (
        _read_npz(place, (match and match.group(2)) or "images", image, len(classes), resize, order) if match else None
    )
    if data is None:
        if not place.is_dir():
            raise ImageError(
                f"{place} is neither an .npz file nor a folder of images; give one of these", code="E-data-kind"
            )
        data = _read_folder(place, image, classes, resize, need_labels)
    if need_labels and data.labels is None:
        raise ConfigError(
            f"{place} has no labels, and they are needed here; add the array `labels` to the .npz, or sort the images "
            f"into one sub-folder per class ({', '.join(list(classes)[:3])}, ...)",
            code="E-data-labels",
        )
    return data


def _read_npz(path: Path, key: str, image: ImageSpec, classes: int, resize: Resize, order: Order) -> LabelledImages:
    try:
        with Npz(path) as arrays:
            names = sorted(arrays.names)
            pixels = None
            if key in names:
                check_array(*arrays.header(key), image, resize)
                pixels = arrays[key]
            labels = arrays["labels"] if "labels" in names and classes else None
    except ImageError as error:
        raise ImageError(f"{path}{'' if key == 'images' else f':{key}'}: {error}", code=error.code) from None
    except ArrayError as error:
        raise ImageError(
            f"{path} cannot be read as .npz ({error}); save it with numpy.savez", code="E-data-unreadable"
        ) from None
    if pixels is None:
        raise ImageError(
            f"{path} has no array {key!r}; it has {', '.join(names) or 'none'}: FILE.npz:NAME takes the array NAME",
            code="E-data-array",
        )
    try:
        loaded = load_images(pixels, image, resize=resize, order=order)
    except ImageError as error:  # its names are positions in an array that only this function knows
        raise ImageError(f"{path}{'' if key == 'images' else f':{key}'}: {error}", code=error.code) from None
    if labels is not None:
        if labels.shape != (len(loaded),) or labels.dtype.kind not in "iu":
            raise ConfigError(
                f"{path}: `labels` is {labels.dtype} {list(labels.shape)}, expected integers [{len(loaded)}], one per "
                "image",
                code="E-labels-type",
            )
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
            raise ConfigError(
                f"{path}: `labels` go from {labels.min()} to {labels.max()}, but the bundle has the classes 0 to "
                f"{classes - 1}",
                code="E-labels-range",
            )
        labels = labels.astype(np.int64)
    return LabelledImages(loaded.images, labels, tuple(loaded.names))


def _read_folder(
    path: Path, image: ImageSpec, classes: Sequence[str], resize: Resize, need_labels: bool
) -> LabelledImages:
    index = {str(i): i for i in range(len(classes))} | {name: i for i, name in enumerate(classes)}
    files = image_files(path)
    tops = [file.relative_to(path).parts[0] if file.parent != path else "" for file in files]
    folders, loose = set(tops) - {""}, [file for file, top in zip(files, tops, strict=True) if not top]
    strange = sorted(folders - set(index))
    labelled = bool(folders & set(index))
    if loose and labelled:
        raise ConfigError(
            f"{path} holds both a folder for each class and images ({loose[0].name}); keep one form",
            code="E-config-folder",
        )
    if strange and (labelled or need_labels):
        some = ", ".join(list(classes)[:5])
        raise ConfigError(
            f"{path / strange[0]} is named like no class of the bundle ({some}, ...); rename or remove it",
            code="E-config-folder",
        )
    loaded = load_images(files or path, image, resize=resize)
    labels = np.array([index[top] for top in tops], np.int64) if labelled else None
    return LabelledImages(loaded.images, labels, tuple(loaded.names))


def check_array(shape: Sequence[int], dtype: np.dtype[Any], image: ImageSpec, resize: Resize) -> None:
    """Refuse by its header an array that cannot hold images of a bundle, before any memory is taken for it.

    Raises:
        ImageError: it has another shape, or does not fit into the memory as float32.
    """
    sizes = {tuple(shape[-3:]), tuple(shape[-2:])} if len(shape) in (2, 3, 4) else set()
    c, h, w = image.shape
    if not sizes & {(c, h, w), (h, w, c), (h, w)} and not (resize and sizes):
        raise ImageError(
            f"it is {dtype} {list(shape)}, expected images: uint8 [N, {h}, {w}, {c}] or float [N, {c}, {h}, {w}] in "
            "[0, 1]",
            code="E-image-shape",
        )
    need, free = math.prod(shape) * (dtype.itemsize + 4), available_memory()
    if free is not None and need > free:
        raise ImageError(
            f"its {list(shape)} pixels need {need / 1e9:.1f} GB of memory, {free / 1e9:.1f} are free; divide it",
            code="E-image-memory",
        )
