"""Masks that a caller gives in place of the attention mask, and masks that are computed in the middle of a plan."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import ConfigError, ImageError, words_of
from ..methods.presets import Preset
from ..types import Float32
from .graphs import OpenGraphs
from .inflight import Job


def caller_masks(mask: Any, images: int, size: tuple[int, int]) -> Float32:
    """Masks ``[B, 1, H, W]`` float32, 1 where the strong noise goes.

    Args:
        mask: ``[H, W]`` for all images, ``[B, H, W]`` or ``[B, 1, H, W]``; bool, or numbers that are 0 or 1.
        images: B.
        size: H and W.

    Raises:
        ImageError: another shape (``E-mask-shape``), or values other than 0 and 1 (``E-mask-values``).
    """
    wanted = {(*size,), (images, *size), (images, 1, *size)}
    try:
        array = np.asarray(mask)
    except (TypeError, ValueError, RuntimeError) as error:  # lists of unequal lengths, a tensor elsewhere
        raise ImageError(
            f"the mask is a {type(mask).__name__} that is no array ({words_of(error)}), expected bool or float "
            f"[{size[0]}, {size[1]}]",
            code="E-mask-shape",
        ) from None
    if array.dtype.kind not in "bfiu" or array.shape not in wanted:
        raise ImageError(
            f"the mask is {array.dtype} {list(array.shape)}, expected bool or float [{size[0]}, {size[1]}] for all "
            f"images, or one for each: [{images}, {size[0]}, {size[1]}] or [{images}, 1, {size[0]}, {size[1]}]",
            code="E-mask-shape",
        )
    if not np.isin(array, (0, 1)).all():  # NaN is not
        raise ImageError(
            "the mask has values other than 0 and 1: it says for each pixel whether the strong noise goes there; cut "
            "it at a threshold (mask > 0.5)",
            code="E-mask-values",
        )
    full = np.broadcast_to(array.reshape(-1, 1, *size), (images, 1, *size))
    return np.ascontiguousarray(full, np.float32)


def check_mask_use(preset: Preset, given: bool) -> None:
    """Raise ConfigError if a mask was given to a preset without one, or none to a preset of the caller's mask."""
    if given and preset.mask is None:
        raise ConfigError(
            f"a mask was given, but the preset's method {preset.method.method!r} treats all pixels alike; choose a "
            "preset with a mask, or leave the mask out",
            code="E-mask-unused",
        )
    if not given and preset.mask is not None and preset.mask.source == "caller":
        raise ConfigError(
            "the preset takes the mask of the caller, and none was given; give it (mask=, --mask)",
            code="E-mask-missing",
        )


def middle_mask(images: int, size: tuple[int, int]) -> Float32:
    """``[B, 1, H, W]`` float32: a box of half the height and width in the middle. It is what a caller's mask is where
    there is no caller: in recordings and comparisons."""
    mask = np.zeros((images, 1, *size), np.float32)
    height, width = size
    mask[:, :, height // 4 : height - height // 4, width // 4 : width - width // 4] = 1.0
    return mask


def after_mask(graphs: OpenGraphs, preset: Preset, job: Job, x: Float32) -> Job:
    """The rest of a job that ended at its plan's ``mask_from``: with the mask of what it made of its noised copy.

    The mask is computed for this job alone, so that it is the same whatever else is under way.
    """
    assert preset.mask is not None
    found = graphs.attention(np.clip(0.5 * x + 0.5, 0.0, 1.0)[None], preset.mask)
    return replace(job, mask=found["mask"][0], x=x, rows=range(job.plan.mask_from, len(job.plan.rows)))
