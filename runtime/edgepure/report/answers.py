"""What a task found, as pixels of a page: outlines of boxes, and a colour for every class of a label map."""

from __future__ import annotations

import colorsys

import numpy as np
from numpy.typing import NDArray

from ..types import Float32

#: Turns the colour circle so that classes beside each other differ (the golden section).
_TURN = 0.618


def outlines(boxes: Float32, size: tuple[int, int]) -> NDArray[np.bool_]:
    """The borders of boxes ``[N, 4]`` (left, top, right, bottom in pixels) in an image of this height and width."""
    found = np.zeros(size, np.bool_)
    for left, top, right, bottom in np.clip(np.rint(boxes), 0, None).astype(int):
        edge = np.zeros_like(found)
        edge[top:bottom, left:right] = True
        edge[top + 1 : bottom - 1, left + 1 : right - 1] = False
        found |= edge
    return found


def painted(label_map: NDArray[np.int64]) -> Float32:
    """A label map ``[H, W]`` as ``[3, H, W]`` in [0, 1]: black for the class 0 and where there is none (-1)."""
    most = max(int(label_map.max()), 0)
    colours = [(0.0, 0.0, 0.0), *(colorsys.hsv_to_rgb((n * _TURN) % 1.0, 0.8, 0.95) for n in range(1, most + 1))]
    return np.asarray(np.array(colours)[np.maximum(label_map, 0)].transpose(2, 0, 1), np.float32)
