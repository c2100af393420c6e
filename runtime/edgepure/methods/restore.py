"""Restoring an image in one call a noise level, to see what does not come back: the mask source ``residual``.

A patch is not what the diffusion model has learnt, so it does not survive a restoration from strong noise, whereas most
of the picture does (the idea of DiffPAD, arXiv 2410.24006). With levels t_1, t_2, ...::

    x0_k = clip((z - sqrt(1 - abar[t_k]) * unet(z, t_k)) / sqrt(abar[t_k]), -1, 1)     z = noised(x_adv, t_k)
    r    = mean over channels of |mean_k x0_k - x_adv| / 2                             in [0, 1]
    map  = mean of r over the window around each pixel

The rows accumulate ``mean_k x0_k`` in x, which starts at zero.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from ..rows.builder import RowBuilder
from ..rows.plan import Plan
from ..rows.schedule import NoiseSchedule
from ..types import Float32
from .spec import MethodSpec

#: The vote whose noise the restorations of a mask have, in the stream of the probes: no other purification has it.
MASK_VOTE = 0xFFFFFF


class RestoreSpec(MethodSpec):
    """``levels``: the timesteps that are restored from, one UNet call each. ``window``: its side in pixels, odd."""

    method: Literal["restore"] = "restore"
    levels: tuple[Annotated[int, Field(ge=0)], ...] = (100, 200)
    window: int = Field(3, ge=1, le=255)

    @model_validator(mode="after")
    def _usable(self) -> RestoreSpec:
        if not self.levels:
            raise ValueError("`levels` is empty; name at least one timestep to restore from")
        if self.window % 2 == 0:
            raise ValueError(f"window {self.window} is even; it lies around a pixel, so give an odd number")
        return self

    def compile(self, schedule: NoiseSchedule, elements: int) -> Plan:
        """Rows that leave the mean restoration in ``x``."""
        builder = RowBuilder("restore")
        for t in self.levels:
            schedule.check(t, "mask level")
            alpha, sigma = schedule.sqrt_alpha_bar(t), schedule.sigma(t)
            builder.diffuse_ref(alpha, sigma, t, source="probe")
            share = 1.0 / len(self.levels)
            builder.call(t, alpha=alpha, sigma=sigma, clip=1.0, stage="restore", next_level=t, out_x=1.0, out_x0=share)
        return builder.finish(start="zeros", levels={"restorations": float(len(self.levels))})


def residual_map(restored: Float32, ref: Float32, window: int) -> Float32:
    """How far each pixel's surroundings are from what came back.

    Args:
        restored, ref: ``[C, H, W]`` float32 in model range: what `RestoreSpec` leaves, and the input.
        window: side of the square that is averaged over, cut at the border of the image.

    Returns:
        ``[1, H, W]`` float32 in [0, 1].
    """
    r = 0.5 * np.abs(restored.astype(np.float64) - ref).mean(axis=0)
    for axis, size in enumerate(r.shape):
        sums = np.concatenate([np.zeros_like(r.take([0], axis)), r.cumsum(axis)], axis)
        first = np.clip(np.arange(size) - window // 2, 0, size)
        last = np.clip(np.arange(size) + window // 2 + 1, 0, size)
        widths = (last - first).reshape([-1 if axis == other else 1 for other in (0, 1)])
        r = (sums.take(last, axis) - sums.take(first, axis)) / widths
    return np.asarray(r[None], np.float32)


def residual_mask(found: Float32, threshold: float | None, area: float | None) -> Float32:
    """``[1, H, W]`` of 0 and 1: where the map is at least ``threshold``, or highest, on ``area`` of the pixels,
    ties included."""
    if area is None:
        assert threshold is not None
        return np.asarray(found >= np.float32(threshold), np.float32)
    count = int(found.size * area)
    if count < 1:
        return np.zeros_like(found)
    cut = np.partition(found.ravel(), found.size - count)[found.size - count]
    return np.asarray(found >= cut, np.float32)
