"""SHA-256 of plain data and of images, and seeds that follow from it."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray


def digest(data: Any) -> str:
    """SHA-256 of plain data, hexadecimal; equal data have equal digests, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(data, sort_keys=True, default=str).encode()).hexdigest()


def derived_seed(seed: int, *parts: object, bits: int = 31) -> int:
    """A seed of ``bits`` bits that follows from another and from what it is for."""
    return int(digest({"seed": seed, "for": [str(p) for p in parts]})[:16], 16) & ((1 << bits) - 1)


def image_key(image: NDArray[np.float32]) -> str:
    """Hash of the pixels of an image ``[C, H, W]`` in [0, 1]: a certificate is about one image. Hexadecimal."""
    return hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()
