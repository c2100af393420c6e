"""The pictures of a report: one image through reference and deployment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..types import Float32
from .executors import PresetRun

#: Images of one preset that are shown, and presets.
MOST_IMAGES, MOST_PRESETS = 4, 4


@dataclass(frozen=True)
class Strip:
    """One image.

    Attributes:
        preset, data, index: which one.
        image, reference, deployed: ``[C, H, W]`` float32 in [0, 1]: the input, and the two purified images.
        reference_mask, deployed_mask: ``[H, W]`` bool; None without a mask.
        reference_label, deployed_label: names of the classes.
    """

    preset: str
    data: str
    index: int
    image: Float32
    reference: Float32
    deployed: Float32
    reference_mask: NDArray[np.bool_] | None
    deployed_mask: NDArray[np.bool_] | None
    reference_label: str
    deployed_label: str


def strips(
    preset: str, data: str, images: Float32, reference: PresetRun, deployed: PresetRun, classes: Sequence[str]
) -> list[Strip]:
    """The images that differ most come first; at most `MOST_IMAGES`."""
    worst = np.abs(reference.purified - deployed.purified).max(axis=(1, 2, 3))
    worst = np.where(reference.labels != deployed.labels, np.inf, np.nan_to_num(worst, nan=np.inf))
    return [
        Strip(
            preset, data, i, images[i], reference.purified[i], deployed.purified[i],
            None if reference.mask is None else reference.mask[i, 0] > 0.5,
            None if deployed.mask is None else deployed.mask[i, 0] > 0.5,
            classes[int(reference.labels[i])], classes[int(deployed.labels[i])],
        )
        for i in map(int, np.argsort(-worst, kind="stable")[:MOST_IMAGES])
    ]  # fmt: skip
