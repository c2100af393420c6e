"""Arrays that hold one image: their shape, dtype and range, with a hint where a common slip explains what is wrong."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ..errors import ImageError
from ..types import Float32
from .spec import ImageSpec

#: Rounding that floats may have outside [0, 1]; it is clipped.
RANGE_TOLERANCE = 1e-6


def read_array(array: NDArray[Any], spec: ImageSpec, resize: bool) -> Float32:
    """One image ``[C, H, W]`` of an array; with ``resize`` of any height and width. Raises ImageError."""
    c, h, w = spec.shape
    size = "H, W" if resize else f"{h}, {w}"
    expected = f"uint8 [{size}, {c}] or float [{c}, {size}] in [0, 1]"
    if array.ndim not in (2, 3):
        raise ImageError(
            f"an array of shape {list(array.shape)} is no image, expected {expected}, or a batch of them",
            code="E-image-shape",
        )
    if array.size == 0:
        raise ImageError(f"the array is empty (shape {list(array.shape)}), expected {expected}", code="E-image-empty")
    if array.dtype != np.uint8 and array.dtype.kind != "f":
        raise ImageError(
            f"the array is {array.dtype}, expected {expected}; if it holds 0 to 255, convert it with .astype(np.uint8)",
            code="E-image-dtype",
        )
    channels_last = array.dtype == np.uint8
    shape = (*array.shape, 1) if channels_last else (1, *array.shape)
    found = cast("tuple[int, int, int]", shape if array.ndim == 2 else array.shape)
    channels, height, width = (found[2], *found[:2]) if channels_last else found
    if channels != c or (not resize and (height, width) != (h, w)):
        raise ImageError(
            f"the {array.dtype} array has shape {list(array.shape)}, expected {expected}"
            f"{_shape_hint(found, spec, channels_last)}",
            code="E-image-shape",
        )
    return unit_range(array)


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


def unit_range(array: NDArray[Any]) -> Float32:
    """A uint8 HWC or HW or a float CHW or HW array as float32 CHW in [0, 1]."""
    if array.dtype == np.uint8:
        hwc = array[:, :, None] if array.ndim == 2 else array
        values: Float32 = np.ascontiguousarray(hwc.transpose(2, 0, 1)).astype(np.float32) / np.float32(255.0)
        return values
    if array.dtype.kind != "f":
        raise ImageError(f"the array is {array.dtype}, expected uint8 or float", code="E-image-dtype")
    chw = array[None] if array.ndim == 2 else array
    good = np.isfinite(chw)
    if not good.all():
        channel, row, column = (int(i) for i in np.argwhere(~good)[0])
        raise ImageError(
            f"{int((~good).sum())} of {good.size} pixels are NaN or infinite (the first in channel {channel}, "
            f"row {row}, column {column}), expected values in [0, 1]; look where the image was computed",
            code="E-image-not-finite",
        )
    low, high = float(chw.min()), float(chw.max())
    if low < -RANGE_TOLERANCE or high > 1.0 + RANGE_TOLERANCE:
        hint = "scale or clip it"
        if low >= 0.0 and 1.5 < high <= 255.0:
            hint = "if it holds 0 to 255, divide it by 255"
        elif low >= -1.0 - RANGE_TOLERANCE and high <= 1.0 + RANGE_TOLERANCE:
            hint = "if it lies in [-1, 1], use (image + 1) / 2"
        raise ImageError(
            f"the values range from {low:.6g} to {high:.6g}, expected [0, 1]; {hint}", code="E-image-range"
        )
    return np.clip(chw.astype(np.float32), 0.0, 1.0)
