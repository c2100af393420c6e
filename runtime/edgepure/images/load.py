"""Images in and out: whatever a user has becomes float32 ``[B, C, H, W]`` in [0, 1], or one clear sentence.

Accepted, alone or mixed in a list: paths of image files, folders of them, bytes (the content of an image file), PIL
images, arrays. Arrays are uint8 ``[H, W, C]`` or ``[H, W]`` (gray), float ``[C, H, W]`` or ``[H, W]`` in [0, 1], and
batches ``[N, H, W, C]`` uint8 or ``[N, C, H, W]`` float. Anything with ``__array__`` counts as an array.

Arrays must have the channels that the bundle takes. Files and PIL images are converted: to gray by the luma of ITU-R
601, to RGB by repeating gray. Nothing else is guessed: another size is an error unless ``resize`` is asked for.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import ConfigError, ImageError
from ..files.atomic import atomic_file
from .spec import ImageSpec

Float32 = NDArray[np.float32]

#: Formats that are decoded. Others run more code than a picture should (EPS starts a PostScript interpreter).
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
#: Files of a folder that are taken as images.
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
#: Files with more pixels are refused before they are decoded: a small file can unpack to gigabytes.
MAX_PIXELS = 1 << 26
#: Rounding that floats may have outside [0, 1]; it is clipped.
RANGE_TOLERANCE = 1e-6

_NAMES = "PNG, JPEG, BMP, GIF, PPM, TIFF or WebP"


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


def load_images(inputs: Any, spec: ImageSpec, *, resize: bool = False, on_error: str = "raise") -> LoadedImages:
    """Turn anything that holds images into one float32 batch.

    Args:
        inputs: see the module's text.
        spec: channels, height and width that the bundle takes.
        resize: stretch images of another size by bilinear interpolation (Pillow's, which averages when it shrinks),
            computed in float32. Without it such an image is an error.
        on_error: ``raise`` at the first bad image, or ``collect`` the bad ones in ``failures`` and load the others.

    Raises:
        ImageError: an image has the wrong size, channels, dtype or range or cannot be read, or there is none at all.
        ConfigError: ``on_error`` is neither of the two.
    """
    if on_error not in ("raise", "collect"):
        raise ConfigError(f"on_error {on_error!r} is unknown; choose 'raise' or 'collect'")
    images: list[Float32] = []
    names: list[str] = []
    indices: list[int] = []
    failures: list[ImageFailure] = []
    index = -1
    for index, (name, item) in enumerate(_items(inputs)):
        try:
            images.append(_load_one(item, spec, resize))
            names.append(name)
            indices.append(index)
        except ImageError as error:
            if on_error == "raise":
                raise ImageError(f"{_label(name, item)}: {error}") from error.__cause__
            failures.append(ImageFailure(index, name, str(error)))
    if index < 0:
        raise ImageError("there is no image: the batch, list or folder is empty; give at least one image")
    batch = np.stack(images) if images else np.zeros((0, *spec.shape), np.float32)
    return LoadedImages(np.ascontiguousarray(batch, dtype=np.float32), names, indices, failures)


def save_image(image: NDArray[Any], path: str | os.PathLike[str]) -> None:
    """Write an image as PNG, atomically.

    PNG only, because it keeps every pixel: a lossy format would not store the image that was classified.

    Args:
        image: float ``[C, H, W]`` or ``[H, W]`` in [0, 1] (rounded to 8 bits), uint8 ``[H, W, C]`` or ``[H, W]``, or a
            bool mask ``[H, W]``. C is 1 or 3.
        path: a name that ends in ``.png``; the folder must exist.

    Raises:
        ImageError: wrong shape, dtype, range or suffix.
        EdgepureError: no space, no permission or no such folder; nothing was written.
    """
    if Path(path).suffix.lower() != ".png":
        raise ImageError(f"{os.fspath(path)}: images are saved as PNG, which loses nothing; choose a name with .png")
    array = np.asarray(image)
    if array.dtype == np.bool_ and array.ndim == 2:
        array = array.astype(np.uint8) * np.uint8(255)
    if array.ndim not in (2, 3) or array.size == 0:
        raise ImageError(f"cannot save an array of shape {list(array.shape)}, expected one image")
    try:
        chw = _unit_range(array)
    except ImageError as error:
        raise ImageError(f"cannot save the image: {error}") from None
    if chw.shape[0] not in (1, 3):
        raise ImageError(
            f"cannot save an image of {chw.shape[0]} channels (shape {list(array.shape)}), expected 1 or 3: "
            "float [C, H, W] or uint8 [H, W, C]"
        )
    pixels = np.floor(chw * 255.0 + 0.5).astype(np.uint8).transpose(1, 2, 0)
    picture = Image.fromarray(np.ascontiguousarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels))
    with atomic_file(path, expected_bytes=pixels.nbytes) as file:
        picture.save(file, format="PNG")


# ---- from inputs to single items -------------------------------------------------------------------------------------


def _items(inputs: Any) -> Iterator[tuple[str, Any]]:
    """Single images and their names; folders and batches are taken apart."""
    if isinstance(inputs, str | os.PathLike | bytes | Image.Image) or hasattr(inputs, "__array__"):
        yield from _expand(inputs, "")
    elif not isinstance(inputs, Iterable):
        raise ImageError(
            f"cannot take images from an object of type {type(inputs).__name__}; give a path, bytes, a PIL image, an "
            "array or a list of these"
        )
    else:
        for position, item in enumerate(inputs):
            yield from _expand(item, str(position))


def _expand(item: Any, position: str) -> Iterator[tuple[str, Any]]:
    if isinstance(item, str | os.PathLike):
        path = Path(item)
        if item == "":  # as a path it would be the current folder
            yield position or "0", ImageError("the path is empty; give an image file or a folder")
            return
        if not path.is_dir():
            yield str(path), path
            return
        files = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
        yield from ((str(p), p) for p in files)
        if not files:
            yield str(path), ImageError(f"the folder holds no image ({', '.join(SUFFIXES)})")
        return
    if not isinstance(item, Image.Image) and hasattr(item, "__array__"):
        try:
            item = np.asarray(item)
        except Exception as error:  # each framework has its own: a tensor on a GPU, one that needs gradients
            item = ImageError(f"a {type(item).__name__} that NumPy cannot read ({error}); give a NumPy array")
        if isinstance(item, np.ndarray) and item.ndim == 4:
            if position and not len(item):
                yield position, ImageError(f"the batch is empty (shape {list(item.shape)}); leave it out")
            for i, image in enumerate(item):
                yield f"{position}[{i}]" if position else str(i), image
            return
    yield position or "0", item


def _label(name: str, item: Any) -> str:
    is_position = not isinstance(item, Path) and re.fullmatch(r"\d+(\[\d+\])?", name)
    return f"image {name}" if is_position else name


# ---- from one item to [C, H, W] --------------------------------------------------------------------------------------


def _load_one(item: Any, spec: ImageSpec, resize: bool) -> Float32:
    """One image as float32 ``[C, H, W]`` in [0, 1]. The messages of its errors do not name the image."""
    if isinstance(item, ImageError):
        raise item
    if isinstance(item, Path):
        image = _read_file(item, spec, resize)
    elif isinstance(item, bytes):
        image = _read(io.BytesIO(item), spec, resize)
    elif isinstance(item, Image.Image):
        image = _decode(item, spec, resize)
    elif isinstance(item, np.ndarray):
        image = _read_array(item, spec, resize)
    else:
        raise ImageError(f"an object of type {type(item).__name__} is no image; give a path, a PIL image or an array")
    return _resize(image, spec) if image.shape[1:] != (spec.height, spec.width) else image


def _read_array(array: NDArray[Any], spec: ImageSpec, resize: bool) -> Float32:
    c, h, w = spec.shape
    size = "H, W" if resize else f"{h}, {w}"
    expected = f"uint8 [{size}, {c}] or float [{c}, {size}] in [0, 1]"
    if array.ndim not in (2, 3):
        raise ImageError(f"an array of shape {list(array.shape)} is no image, expected {expected}, or a batch of them")
    if array.size == 0:
        raise ImageError(f"the array is empty (shape {list(array.shape)}), expected {expected}")
    if array.dtype != np.uint8 and array.dtype.kind != "f":
        raise ImageError(
            f"the array is {array.dtype}, expected {expected}; if it holds 0 to 255, convert it with .astype(np.uint8)"
        )
    channels_last = array.dtype == np.uint8
    shape = (*array.shape, 1) if channels_last else (1, *array.shape)
    found = cast("tuple[int, int, int]", shape if array.ndim == 2 else array.shape)
    channels, height, width = (found[2], *found[:2]) if channels_last else found
    if channels != c or (not resize and (height, width) != (h, w)):
        raise ImageError(
            f"the {array.dtype} array has shape {list(array.shape)}, expected {expected}"
            f"{_shape_hint(found, spec, channels_last)}"
        )
    return _unit_range(array)


def _shape_hint(found: tuple[int, int, int], spec: ImageSpec, channels_last: bool) -> str:
    c, h, w = spec.shape
    if channels_last and found == (c, h, w):
        return "; uint8 images have their channels last: use .transpose(1, 2, 0)"
    if not channels_last and found == (h, w, c):
        return "; float images have their channels first: use .transpose(2, 0, 1)"
    if found[1:] == (h, w) and c == 1:
        return "; a batch of gray images needs its channel axis: use array[" + (
            "..., None]" if channels_last else ":, None]"
        )
    channels = found[2] if channels_last else found[0]
    if channels == c:
        return "; resize the image, or ask for it (resize=True, --resize)"
    return f"; this bundle takes {c} channel{'s' if c > 1 else ''}: convert the image"


def _unit_range(array: NDArray[Any]) -> Float32:
    """A uint8 HWC or HW or a float CHW or HW array as float32 CHW in [0, 1]."""
    if array.dtype == np.uint8:
        hwc = array[:, :, None] if array.ndim == 2 else array
        values: Float32 = np.ascontiguousarray(hwc.transpose(2, 0, 1)).astype(np.float32) / np.float32(255.0)
        return values
    if array.dtype.kind != "f":
        raise ImageError(f"the array is {array.dtype}, expected uint8 or float")
    chw = array[None] if array.ndim == 2 else array
    good = np.isfinite(chw)
    if not good.all():
        channel, row, column = (int(i) for i in np.argwhere(~good)[0])
        raise ImageError(
            f"{int((~good).sum())} of {good.size} pixels are NaN or infinite (the first in channel {channel}, "
            f"row {row}, column {column}), expected values in [0, 1]; look where the image was computed"
        )
    low, high = float(chw.min()), float(chw.max())
    if low < -RANGE_TOLERANCE or high > 1.0 + RANGE_TOLERANCE:
        hint = "scale or clip it"
        if low >= 0.0 and 1.5 < high <= 255.0:
            hint = "if it holds 0 to 255, divide it by 255"
        elif low >= -1.0 - RANGE_TOLERANCE and high <= 1.0 + RANGE_TOLERANCE:
            hint = "if it lies in [-1, 1], use (image + 1) / 2"
        raise ImageError(f"the values range from {low:.6g} to {high:.6g}, expected [0, 1]; {hint}")
    return np.clip(chw.astype(np.float32), 0.0, 1.0)


def _resize(image: Float32, spec: ImageSpec) -> Float32:
    size = (spec.width, spec.height)
    planes = [Image.fromarray(np.ascontiguousarray(p)).resize(size, Image.Resampling.BILINEAR) for p in image]
    return np.clip(np.stack([np.asarray(p, dtype=np.float32) for p in planes]), 0.0, 1.0)


# ---- files and PIL images --------------------------------------------------------------------------------------------


def _read_file(path: Path, spec: ImageSpec, resize: bool) -> Float32:
    if not path.exists():
        raise ImageError("there is no such file; check the path")
    if not path.is_file():
        raise ImageError("it is not a regular file, expected an image file")
    return _read(path, spec, resize)


def _read(file: Path | io.BytesIO, spec: ImageSpec, resize: bool) -> Float32:
    try:
        with Image.open(file, formats=FORMATS) as picture:
            return _decode(picture, spec, resize)
    except ImageError:
        raise
    except PermissionError:
        raise ImageError("permission denied; make the file readable") from None
    except Image.DecompressionBombError:
        raise ImageError(f"it unpacks to more than {MAX_PIXELS} pixels, which is refused; shrink it first") from None
    except Exception as error:  # as in _decode
        reason = "its format is not known" if isinstance(error, UnidentifiedImageError) else str(error) or repr(error)
        raise ImageError(f"it cannot be read as an image ({reason}); expected a whole {_NAMES} file") from error


def _decode(picture: Image.Image, spec: ImageSpec, resize: bool) -> Float32:
    """Check what can be checked before decoding, then decode, turn upright and convert."""
    c, h, w = spec.shape
    if c not in (1, 3):
        raise ImageError(f"this bundle takes {c} channels, and files are gray or RGB; give arrays [{c}, {h}, {w}]")
    pixels = picture.width * picture.height
    if pixels > MAX_PIXELS:
        raise ImageError(f"it has {pixels} pixels, at most {MAX_PIXELS} are allowed; shrink it first")
    if pixels == 0:
        raise ImageError(f"it is {picture.width} x {picture.height} pixels, so it is empty")
    # before Pillow 11, 16-bit gray PNGs have the 32-bit mode
    sixteen_bits = picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format == "PNG")
    try:
        frames = 1 if picture.format == "MPO" else getattr(picture, "n_frames", 1)  # MPO: a JPEG with a preview
        if frames > 1:
            raise ImageError(f"it has {frames} frames, expected one; give the frames one by one")
        upright = ImageOps.exif_transpose(picture)
        upright.load()
    except ImageError:
        raise
    except Exception as error:  # decoders raise many unrelated classes on damaged files
        raise ImageError(f"it cannot be decoded ({error}); the file is damaged or cut off") from error
    if not resize and upright.size != (w, h):
        raise ImageError(
            f"it is {upright.width} x {upright.height} pixels (width x height), expected {w} x {h}; resize it, or ask "
            "for it (resize=True, --resize)"
        )
    values = _values_16_bit(upright) if sixteen_bits else _values_8_bit(upright, c)
    planes = values[None] if values.ndim == 2 else values.transpose(2, 0, 1)
    if planes.shape[0] == 1 and c == 3:
        planes = np.repeat(planes, 3, axis=0)
    return np.ascontiguousarray(planes)


def _values_16_bit(picture: Image.Image) -> Float32:
    """Gray ``[H, W]`` in [0, 1]."""
    values: Float32 = np.asarray(picture).astype(np.float32) / np.float32(65535.0)
    return values


def _values_8_bit(picture: Image.Image, channels: int) -> Float32:
    """``[H, W]`` for one channel or ``[H, W, 3]`` for three, in [0, 1]."""
    if picture.mode in ("I", "F"):
        raise ImageError(
            f"its pixels are 32-bit (mode {picture.mode}) with no known range, expected 8 or 16 bits; "
            "scale it to [0, 1] and give it as a float array"
        )
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        rgba = picture.convert("RGBA")
        lowest, _ = cast("tuple[int, int]", rgba.getchannel("A").getextrema())
        if lowest < 255:
            raise ImageError("it has transparent pixels; put it on a background of your choice first")
        picture = rgba.convert("RGB")
    pixels = np.asarray(picture.convert("L" if channels == 1 else "RGB"))
    values: Float32 = pixels.astype(np.float32) / np.float32(255.0)
    return values
