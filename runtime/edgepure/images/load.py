"""Images in: whatever a user has becomes float32 ``[B, C, H, W]`` in [0, 1], or one clear sentence.

Accepted, alone or mixed in a list: paths of image files, folders of them, the bytes of an image file (or an open file,
a ``BytesIO``, a ``bytearray``, a ``memoryview``), PIL images, arrays. Arrays are uint8 ``[H, W, C]`` or ``[H, W]``
(gray), float ``[C, H, W]`` or ``[H, W]`` in [0, 1], and batches ``[N, H, W, C]`` uint8 or ``[N, C, H, W]`` float.
Anything with ``__array__`` counts as an array.

Arrays must have the channels that the bundle takes, in the order red, green, blue unless ``order`` says otherwise.
Files and PIL images are converted: to gray by the luma of ITU-R 601, to RGB by repeating gray. Nothing else is guessed:
another size is an error unless ``resize`` is asked for.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from PIL import Image

from ..errors import ConfigError, ImageError, words_of
from ..types import Float32
from .arrays import read_array
from .decode import decode, read_picture
from .folders import image_files
from .spec import ImageSpec

#: What may be done with images of another size; True is ``squash``.
Resize = bool | Literal["squash", "crop", "pad"]
Order = Literal["rgb", "bgr"]


@dataclass(frozen=True)
class ImageFailure:
    """An input that could not be used. ``index`` counts the inputs, good and bad, from 0."""

    index: int
    name: str
    reason: str


@dataclass(frozen=True)
class LoadedImages:
    """Images that are ready for a bundle.

    Attributes:
        images: ``[B, C, H, W]`` float32 in [0, 1], C-contiguous; B may be 0 if every input failed.
        names: of each image: its path, or its position in the input.
        indices: position of each image among all inputs, the failed ones counted.
        failures: the inputs that could not be used (only with ``on_error="collect"``).
    """

    images: Float32
    names: list[str]
    indices: list[int]
    failures: list[ImageFailure]

    def __len__(self) -> int:
        return len(self.images)


def load_images(
    inputs: Any, spec: ImageSpec, *, resize: Resize = False, order: Order = "rgb", on_error: str = "raise"
) -> LoadedImages:
    """Turn anything that holds images into one float32 batch.

    Args:
        inputs: see the module's text.
        spec: channels, height and width that the bundle takes.
        resize: what is done with images of another size, by bilinear interpolation (Pillow's, which averages when it
            shrinks) in float32. ``squash`` or True: both sides are stretched. ``crop``: the largest part of the right
            shape, from the middle. ``pad``: the whole image in the middle, black around it. False: it is an error.
        order: of the colours in arrays: ``rgb``, or ``bgr`` as OpenCV has them.
        on_error: ``raise`` at the first bad image, or ``collect`` the bad ones in ``failures`` and load the others.

    Raises:
        ImageError: an image has the wrong size, channels, dtype or range or cannot be read, or there is none at all.
        ConfigError: ``resize``, ``order`` or ``on_error`` is none of these.
    """
    check_options(resize, order, on_error)
    images: list[Float32] = []
    names: list[str] = []
    indices: list[int] = []
    failures: list[ImageFailure] = []
    index = -1
    for index, (name, item) in enumerate(single_items(inputs)):
        try:
            images.append(_load_one(item, spec, resize, order))
            names.append(name)
            indices.append(index)
        except ImageError as error:
            if on_error == "raise":
                raise ImageError(f"{called(name, item)}: {error}", code=error.code) from error.__cause__
            failures.append(ImageFailure(index, name, str(error)))
    if index < 0:
        raise ImageError(
            "there is no image: the batch, list or folder is empty; give at least one image", code="E-image-none"
        )
    batch = np.stack(images) if images else np.zeros((0, *spec.shape), np.float32)
    return LoadedImages(np.ascontiguousarray(batch, dtype=np.float32), names, indices, failures)


def check_options(resize: object, order: object, on_error: object) -> None:
    """Raise ConfigError unless these are options of `load_images`."""
    for name, given, known in (
        ("resize", resize, (False, True, "squash", "crop", "pad")),
        ("order", order, ("rgb", "bgr")),
        ("on_error", on_error, ("raise", "collect")),
    ):
        if not isinstance(given, str | bool) or given not in known:
            choices = " or ".join(map(repr, known))
            raise ConfigError(f"{name} {given!r:.80} is unknown; choose {choices}", code="E-config-option")


# ---- from inputs to single items -------------------------------------------------------------------------------------


def single_items(inputs: Any) -> Iterator[tuple[str, Any]]:
    """Single images and their names; folders and batches are taken apart."""
    if isinstance(inputs, str | os.PathLike | bytes | bytearray | memoryview | Image.Image) or _is_whole(inputs):
        yield from _expand(inputs, "")
    elif not isinstance(inputs, Iterable):
        raise ImageError(
            f"cannot take images from an object of type {type(inputs).__name__}; give a path, bytes, a PIL image, an "
            "array or a list of these",
            code="E-image-type",
        )
    else:
        for position, item in enumerate(inputs):
            yield from _expand(item, str(position))


def _is_whole(item: Any) -> bool:
    """Whether it is an array or an open file, which can be iterated over, too."""
    return not isinstance(item, type) and (hasattr(item, "__array__") or hasattr(item, "read"))


def _expand(item: Any, position: str) -> Iterator[tuple[str, Any]]:
    if isinstance(item, str | os.PathLike):
        path = Path(item)
        if item == "":  # as a path it would be the current folder
            yield (
                position or "0",
                ImageError("the path is empty; give an image file or a folder", code="E-image-path-empty"),
            )
            return
        if not path.is_dir():
            yield str(path), path
            return
        files = image_files(path)
        yield from ((str(p), p) for p in files)
        if not files:
            yield (
                str(path),
                ImageError(
                    "the folder holds no image, nor do its sub-folders; give a folder with PNG, JPEG or other images",
                    code="E-image-none",
                ),
            )
        return
    if not isinstance(item, Image.Image) and hasattr(item, "__array__"):
        masked = isinstance(item, np.ma.MaskedArray) and bool(np.ma.getmaskarray(item).any())
        try:
            item = np.asarray(item)
        except Exception as error:  # each framework has its own: a tensor on a GPU, one that needs gradients
            item = ImageError(
                f"a {type(item).__name__} that NumPy cannot read ({words_of(error)}); give a NumPy array",
                code="E-image-numpy",
            )
        if masked:
            item = ImageError("pixels of the array are masked, so they have no value; fill them", code="E-image-masked")
        if isinstance(item, np.ndarray) and item.ndim == 4:
            if position and not len(item):
                yield (
                    position,
                    ImageError(f"the batch is empty (shape {list(item.shape)}); leave it out", code="E-image-none"),
                )
            for i, image in enumerate(item):
                yield f"{position}[{i}]" if position else str(i), image
            return
    yield position or "0", item


def called(name: str, item: Any) -> str:
    is_position = not isinstance(item, Path) and re.fullmatch(r"\d+(\[\d+\])?", name)
    return f"image {name}" if is_position else name


# ---- from one item to [C, H, W] --------------------------------------------------------------------------------------


def _load_one(item: Any, spec: ImageSpec, resize: Resize, order: Order) -> Float32:
    """One image as float32 ``[C, H, W]`` in [0, 1]. The messages of its errors do not name the image."""
    image = read_one(item, spec, bool(resize), order)
    return resize_to(image, spec, resize) if image.shape[1:] != (spec.height, spec.width) else image


def read_one(item: Any, spec: ImageSpec, any_size: bool, order: Order) -> Float32:
    """The pixels of one image ``[C, H, W]``; of the size of ``spec`` unless it may have ``any_size``."""
    if isinstance(item, ImageError):
        raise item
    if isinstance(item, Path):
        return read_picture(item, spec, any_size)
    if isinstance(item, bytes | bytearray | memoryview):
        return read_picture(io.BytesIO(item), spec, any_size)
    if isinstance(item, Image.Image):
        return decode(item, spec, any_size)
    if isinstance(item, np.ndarray):
        image = read_array(item, spec, any_size)
        return np.ascontiguousarray(image[::-1]) if order == "bgr" else image
    if hasattr(item, "read"):
        return read_picture(_stream(item), spec, any_size)
    raise ImageError(
        f"an object of type {type(item).__name__} is no image; give a path, a PIL image or an array",
        code="E-image-type",
    )


def _stream(item: Any) -> IO[bytes]:
    """An open file from where it stands, which stays open."""
    try:
        data = item.read()
    except Exception as error:  # closed, opened for writing, a connection that broke
        raise ImageError(
            f"it cannot be read ({words_of(error)}); give an open binary file", code="E-image-read"
        ) from error
    if not isinstance(data, bytes):
        raise ImageError("it is a text file; open it in binary mode ('rb')", code="E-image-text-mode")
    return io.BytesIO(data)


def resize_to(image: Float32, spec: ImageSpec, how: Resize) -> Float32:
    """``[C, H, W]`` as `load_images` makes it the size of ``spec``."""
    height, width = image.shape[1:]
    box = (0.0, 0.0, float(width), float(height))
    size = (spec.width, spec.height)
    if how == "crop":
        scale = min(width / spec.width, height / spec.height)
        left, top = (width - scale * spec.width) / 2, (height - scale * spec.height) / 2
        box = (left, top, left + scale * spec.width, top + scale * spec.height)
    elif how == "pad":
        scale = max(width / spec.width, height / spec.height)
        size = (max(1, round(width / scale)), max(1, round(height / scale)))
    planes = [Image.fromarray(np.ascontiguousarray(p)).resize(size, Image.Resampling.BILINEAR, box) for p in image]
    found = np.clip(np.stack([np.asarray(p, dtype=np.float32) for p in planes]), 0.0, 1.0)
    left, top = (spec.width - size[0]) // 2, (spec.height - size[1]) // 2
    return np.pad(found, ((0, 0), (top, spec.height - size[1] - top), (left, spec.width - size[0] - left)))
