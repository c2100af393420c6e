"""Images that the tests of `edgepure.images.load` share, and how a refusal is looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgepure.errors import ImageError
from edgepure.images.load import load_images
from edgepure.images.spec import ImageSpec

GRAY = ImageSpec(channels=1, height=4, width=6)
RGB = ImageSpec(channels=3, height=4, width=6)
RANDOM = np.random.default_rng(5)
GRAY_PIXELS = RANDOM.integers(0, 256, (4, 6), dtype=np.uint8)
RGB_PIXELS = RANDOM.integers(0, 256, (4, 6, 3), dtype=np.uint8)
GRAY_VALUES = (GRAY_PIXELS / np.float32(255)).astype(np.float32)[None]
RGB_VALUES = (RGB_PIXELS / np.float32(255)).astype(np.float32).transpose(2, 0, 1)


def refusal(inputs: Any, spec: ImageSpec = RGB, **options: Any) -> str:
    """The one sentence with which an image is refused."""
    with pytest.raises(ImageError) as caught:
        load_images(inputs, spec, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def save(pixels: np.ndarray, path: Path, mode: str | None = None, **options: Any) -> Path:
    """Write pixels as an image file."""
    picture = Image.fromarray(pixels)
    (picture.convert(mode) if mode else picture).save(path, **options)
    return path
