"""Boxes and label maps as pixels of a page."""

from __future__ import annotations

import numpy as np

from edgepure.report.answers import outlines, painted


def test_boxes_are_outlined_and_do_not_hide_each_other() -> None:
    boxes = np.array([[0, 0, 8, 8], [2, 2, 5, 5], [6, 6, 20, 20], [-5, -5, 3, 3]], np.float32)
    found = outlines(boxes, (10, 12))
    assert found.shape == (10, 12)
    assert found[0, :8].all() and found[7, :8].all() and found[2, 2:5].all() and found[3, 2] and found[3, 4]
    assert not found[3, 3] and not found[9, 0]
    assert found[6, 6:].all() and found[6:, 6].all(), "what reaches beyond the image is cut"
    assert not outlines(boxes[:0], (4, 4)).any()


def test_every_class_has_a_colour_of_its_own() -> None:
    label_map = np.arange(-1, 23).reshape(4, 6)
    pixels = painted(label_map)
    assert pixels.shape == (3, 4, 6) and pixels.dtype == np.float32
    assert pixels.min() >= 0.0 and pixels.max() <= 1.0
    assert not pixels[:, 0, :2].any(), "no class and the background are black"
    assert len({tuple(colour) for colour in pixels.reshape(3, -1).T.round(3)}) == 23
    assert not painted(np.full((2, 2), -1)).any()
