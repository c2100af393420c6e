"""Scenes: up to four digits scattered on a black canvas of 48 x 48, with their boxes and a class for every pixel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from samples.digits.data import IMAGE_SIZE, Images, Labels, Subset

SIZE = 48
CELLS = 2
#: Names of the classes of pixels; a detector has those of the digits alone.
DIGITS = tuple(str(n) for n in range(10))
PIXELS = ("background", *DIGITS)
#: A pixel that is brighter belongs to its digit.
INK = 0.25


@dataclass(frozen=True)
class Scenes:
    """Canvases and what is on them.

    Attributes:
        images: ``[N, 1, 48, 48]`` float32 in [0, 1].
        pixels: ``[N, 48, 48]`` int64, 0 or 1 + the digit.
        boxes: ``[N, 4, 4]`` float32: left, top, right, bottom of the ink in pixels.
        digits: ``[N, 4]`` int64 of each box; -1 where there is none.
    """

    images: Images
    pixels: Labels
    boxes: Images
    digits: Labels


def make_scenes(subset: Subset, count: int, seed: int) -> Scenes:
    """Scenes of digits of a subset; each in a quarter of its own, so that none covers another."""
    random = np.random.default_rng(seed)
    images = np.zeros((count, 1, SIZE, SIZE), np.float32)
    pixels = np.zeros((count, SIZE, SIZE), np.int64)
    boxes = np.zeros((count, CELLS**2, 4), np.float32)
    digits = np.full((count, CELLS**2), -1, np.int64)
    source, room = subset.images[:, 0], SIZE // CELLS - IMAGE_SIZE
    for n in range(count):
        cells = random.permutation(CELLS**2)[: random.integers(2, CELLS**2 + 1)]
        for place, cell in enumerate(cells):
            chosen = int(random.integers(len(subset)))
            top, left = (int(c) * (SIZE // CELLS) + int(random.integers(room + 1)) for c in divmod(cell, CELLS))
            digit, label = source[chosen], int(subset.labels[chosen])
            area = slice(top, top + IMAGE_SIZE), slice(left, left + IMAGE_SIZE)
            images[n, 0][area] = digit
            pixels[n][area] = np.where(digit > INK, 1 + label, 0)
            rows, columns = np.nonzero(digit > INK)
            low, high = (columns.min(), rows.min()), (columns.max() + 1, rows.max() + 1)
            boxes[n, place] = [left + low[0], top + low[1], left + high[0], top + high[1]]
            digits[n, place] = label
    return Scenes(images, pixels, boxes, digits)
