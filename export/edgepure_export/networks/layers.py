"""The two pieces that all UNet families share: the timestep embedding and resampling by two."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def sinusoid(t: Tensor, channels: int, *, endpoint: bool, sin_first: bool) -> Tensor:
    """Sinusoidal embedding of timesteps (Ho et al. 2020, after Vaswani et al. 2017).

    Args:
        t: [B], real-valued.
        channels: even width of the embedding.
        endpoint: the lowest frequency is exactly 1/10000 (score_sde) and not one step above it (guided-diffusion).
        sin_first: order of the halves.

    Returns:
        [B, channels] float32, whatever the precision of the network: half precision cannot tell timesteps apart.
    """
    half = channels // 2
    # Made here and not kept as a buffer, so that neither .half() nor the meta device can touch it.
    index = torch.arange(half, dtype=torch.float32, device=t.device)
    frequencies = torch.exp(index * (-math.log(10_000.0) / (half - 1 if endpoint else half)))
    angles = t.to(torch.float32)[:, None] * frequencies
    halves = (angles.sin(), angles.cos())
    return torch.cat(halves if sin_first else halves[::-1], dim=1)


def upsample2(x: Tensor, taps: Sequence[float] = (1.0, 1.0)) -> Tensor:
    """[B, C, H, W] -> [B, C, 2H, 2W] with the separable FIR filter ``taps`` (zeros outside); (1, 1) is nearest."""
    if _is_box(taps):
        return F.interpolate(x, scale_factor=2.0, mode="nearest")
    kernel = 4.0 * fir_kernel(taps).to(x)
    padding = (kernel.shape[-1] - 1) // 2
    return F.conv_transpose2d(x, _per_channel(kernel, x), stride=2, padding=padding, groups=x.shape[1])


def downsample2(x: Tensor, taps: Sequence[float] = (1.0, 1.0)) -> Tensor:
    """[B, C, H, W] -> [B, C, H/2, W/2] with the separable FIR filter ``taps`` (zeros outside); (1, 1) is the mean."""
    if _is_box(taps):
        return F.avg_pool2d(x, 2)
    kernel = fir_kernel(taps).to(x)
    return F.conv2d(x, _per_channel(kernel, x), stride=2, padding=(kernel.shape[-1] - 1) // 2, groups=x.shape[1])


def blur(x: Tensor, taps: Sequence[float], padding: int) -> Tensor:
    """The filter alone, after ``padding`` zeros on every side: H becomes H + 2 padding + 1 - len(taps)."""
    return F.conv2d(x, _per_channel(fir_kernel(taps).to(x), x), padding=padding, groups=x.shape[1])


def fir_kernel(taps: Sequence[float]) -> Tensor:
    """[n, n] float32, outer product of ``taps``, with sum 1."""
    line = torch.tensor(tuple(taps), dtype=torch.float32, device="cpu")
    kernel = torch.outer(line, line)
    return kernel / kernel.sum()


def _is_box(taps: Sequence[float]) -> bool:
    return len(taps) == 2 and taps[0] == taps[1]


def _per_channel(kernel: Tensor, x: Tensor) -> Tensor:
    return kernel[None, None].repeat(x.shape[1], 1, 1, 1)
