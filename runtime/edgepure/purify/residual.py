"""Masks of the source ``residual`` alone, without a purification: for measurements and recordings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ..errors import ConfigError
from ..methods.presets import MaskSpec
from ..methods.restore import MASK_VOTE, residual_map, residual_mask
from ..rows.noise import NoiseSource, noise_source
from ..types import Float32
from .arguments import check_images
from .inflight import InFlight, Job
from .purifier import Purifier


def residual_masks(
    purifier: Purifier,
    images: Float32,
    mask: MaskSpec,
    noise: NoiseSource | int | None = None,
    *,
    ids: Sequence[int] | None = None,
) -> Float32:
    """Masks ``[B, 1, H, W]`` (0 or 1) of images ``[B, C, H, W]`` float32 in [0, 1].

    ``ids``: which images of the noise stream they are; None: 0, 1, 2, ...

    Raises:
        ConfigError: the mask is of another source, or its levels do not fit the schedule.
        ImageError: the batch has another shape or dtype.
    """
    if mask.source != "residual":
        raise ConfigError(f"the mask is of the source {mask.source!r}, expected 'residual'", code="E-mask-source")
    shape = purifier.image_shape
    check_images(images, shape)
    plan, source = purifier.planner.rows(mask.residual), noise_source(noise)
    masks = np.zeros((len(images), 1, *shape[1:]), np.float32)

    def jobs() -> Iterator[Job]:
        for i, image in enumerate(images):
            own = source.for_image(plan, i if ids is None else ids[i], MASK_VOTE, None, shape, probe=True)
            yield Job(plan, own, 2.0 * image - 1.0, tag=i)

    def done(job: Job, x: Float32) -> None:
        found = residual_map(x, job.ref, mask.residual.window)
        masks[job.tag] = residual_mask(found, mask.threshold, mask.area)

    with purifier.turns.alone():
        InFlight(purifier.stepper("step")).run(jobs(), done)
    return masks
