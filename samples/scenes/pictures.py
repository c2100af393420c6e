"""Pictures of scenes: what was seen beside what was answered."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

#: Enlargement, and pixels between pictures.
SCALE, GAP = 4, 6
#: Of the background and the ten digits.
COLOURS = np.array(
    [(0, 0, 0), (230, 25, 75), (60, 180, 75), (255, 225, 25), (67, 99, 216), (245, 130, 49), (145, 30, 180),
     (66, 212, 244), (240, 50, 230), (191, 239, 69), (250, 190, 212)], np.uint8,
)  # fmt: skip

Picture = NDArray[np.uint8]


def gray(image: NDArray[np.float32]) -> Picture:
    """An image ``[1, H, W]`` in [0, 1]."""
    levels = np.rint(255.0 * image[0]).astype(np.uint8)
    return _enlarged(np.repeat(levels[..., None], 3, axis=2))


def label_map(classes: NDArray[np.int64]) -> Picture:
    """A colour for each class ``[H, W]``."""
    return _enlarged(COLOURS[classes])


def with_boxes(image: NDArray[np.float32], answer: Any) -> Picture:
    """An image with the boxes and classes of a `Detection`."""
    picture = Image.fromarray(gray(image))
    draw = ImageDraw.Draw(picture)
    for box, label, name in zip(answer.boxes, answer.labels, answer.class_names, strict=True):
        colour = tuple(int(v) for v in COLOURS[label + 1])
        corners = [SCALE * float(v) for v in box]
        draw.rectangle(corners, outline=colour, width=2)
        draw.text((corners[0] + 3, corners[1] + 1), name, fill=colour)
    return np.asarray(picture)


def save_grid(rows: Sequence[Sequence[Picture]], path: Path) -> None:
    """Rows of pictures of one size, as PNG."""
    height, width = rows[0][0].shape[:2]
    canvas = np.full((len(rows) * (height + GAP) - GAP, len(rows[0]) * (width + GAP) - GAP, 3), 90, np.uint8)
    for i, row in enumerate(rows):
        for j, picture in enumerate(row):
            top, left = i * (height + GAP), j * (width + GAP)
            canvas[top : top + height, left : left + width] = picture
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(canvas).save(path)


def _enlarged(picture: Picture) -> Picture:
    return picture.repeat(SCALE, axis=0).repeat(SCALE, axis=1)
