"""Trivial defences: what purification has to beat. None of them has a network of its own.

Each is a function from images [B, 3, 32, 32] in [0, 1] to images, and differentiable; JPEG's gradient is taken to be
the identity (BPDA), as its rounding has none.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

Transform = Callable[[Tensor, torch.Generator], Tensor]


@dataclass(frozen=True)
class Baseline:
    """A transform before the classifier. `random`: it draws noise, so that votes make sense."""

    name: str
    transform: Transform
    random: bool = False


def jpeg(quality: int) -> Baseline:
    """Compress and read again, 4:2:0 chroma as usual."""

    def transform(x: Tensor, _: torch.Generator) -> Tensor:
        pixels = (x.detach().clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        read = []
        for image in pixels:
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, "JPEG", quality=quality)
            read.append(np.asarray(Image.open(buffer), np.float32) / 255)
        compressed = torch.from_numpy(np.stack(read)).permute(0, 3, 1, 2).to(x)
        return x + (compressed - x).detach()

    return Baseline(f"jpeg-{quality}", transform)


def blur(sigma: float) -> Baseline:
    """A Gaussian filter."""
    reach = max(1, int(np.ceil(2.5 * sigma)))
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    weights = weights / weights.sum()
    kernel = (weights[:, None] * weights[None, :]).expand(3, 1, -1, -1)

    def transform(x: Tensor, _: torch.Generator) -> Tensor:
        return F.conv2d(F.pad(x, (reach,) * 4, mode="reflect"), kernel.to(x), groups=3)

    return Baseline(f"blur-{sigma:g}", transform)


def projection(mean: Tensor, components: Tensor, count: int) -> Baseline:
    """Keep what lies in the span of the first `count` principal components [k, 3072] of the training images."""
    basis = components[:count]

    def transform(x: Tensor, _: torch.Generator) -> Tensor:
        centred = x.flatten(1) - mean
        return (mean + centred @ basis.T @ basis).reshape(x.shape).clamp(0, 1)

    return Baseline(f"pca-{count}", transform)


def gaussian(sigma: float) -> Baseline:
    """Add noise, and nothing else: with votes this is randomised smoothing of an ordinary classifier."""

    def transform(x: Tensor, generator: torch.Generator) -> Tensor:
        return x + sigma * torch.randn(x.shape, generator=generator).to(x)

    return Baseline(f"noise-{sigma:g}", transform, random=True)


def wiener(mean: Tensor, components: Tensor, variances: Tensor, t: int) -> Baseline:
    """Noise as purification adds it at timestep t, and the best linear denoiser: purification without a network."""
    bar = float(torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)[t])
    sigma = 0.5 * ((1 - bar) / bar) ** 0.5  # images of [0, 1] are half as wide as the model's
    gains = variances / (variances + sigma**2)

    def transform(x: Tensor, generator: torch.Generator) -> Tensor:
        noisy = x + sigma * torch.randn(x.shape, generator=generator).to(x)
        parts = (noisy.flatten(1) - mean) @ components.T * gains
        denoised: Tensor = (mean + parts @ components).reshape(x.shape).clamp(0, 1)
        return denoised

    return Baseline(f"wiener-{t}", transform, random=True)


def principal_components(images: NDArray[np.uint8], count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean [3072], the first components [count, 3072] of uint8 images, and the variances [count] along them."""
    x = torch.from_numpy(images.reshape(len(images), -1)).float() / 255
    mean = x.mean(0)
    x -= mean
    values, vectors = torch.linalg.eigh(x.T @ x / len(x))
    return mean, vectors.T.flip(0)[:count].contiguous(), values.flip(0)[:count].clamp_min(0).contiguous()
