"""Images out: PNG, whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import ImageError, words_of
from ..files.atomic import atomic_file
from .arrays import unit_range


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
        raise ImageError(
            f"{os.fspath(path)}: images are saved as PNG, which loses nothing; choose a name with .png",
            code="E-image-save-name",
        )
    array = np.asarray(image)
    if array.dtype == np.bool_ and array.ndim == 2:
        array = array.astype(np.uint8) * np.uint8(255)
    if array.ndim not in (2, 3) or array.size == 0:
        raise ImageError(
            f"cannot save an array of shape {list(array.shape)}, expected one image", code="E-image-save-shape"
        )
    try:
        chw = unit_range(array)
    except ImageError as error:
        raise ImageError(f"cannot save the image: {words_of(error)}", code="E-image-save") from None
    if chw.shape[0] not in (1, 3):
        raise ImageError(
            f"cannot save an image of {chw.shape[0]} channels (shape {list(array.shape)}), expected 1 or 3: "
            "float [C, H, W] or uint8 [H, W, C]",
            code="E-image-save-channels",
        )
    pixels = np.floor(chw * 255.0 + 0.5).astype(np.uint8).transpose(1, 2, 0)
    picture = Image.fromarray(np.ascontiguousarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels))
    with atomic_file(path, expected_bytes=pixels.nbytes) as file:
        picture.save(file, format="PNG")
