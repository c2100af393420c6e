"""The preprocessing of a classifier as part of its graph: resize, crop and normalise, exactly as its library does.

Resizing is two matrix products with constant weights. They are those of the library's own filter (bilinear or bicubic,
antialiased), so every engine computes the same; ONNX's Resize has no antialias in TensorRT, and its variants differ.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgepure.errors import ExportError

Filter = Literal["bilinear", "bicubic", "nearest"]

#: How an image gets to the classifier's size; see `Transform.fitted`.
RESIZES = ("library", "crop", "plain", "none")


@dataclass(frozen=True)
class Transform:
    """What a library does with an image before its network.

    Attributes:
        size: height and width that the network gets.
        crop_share: the part of each side that a centre crop keeps after resizing; 1: the whole image.
        filter: of the resizing.
        antialias: a wider filter when the image shrinks, as Pillow does.
        mean, std: per channel, for images in [0, 1]; None: no normalisation.
    """

    size: tuple[int, int]
    crop_share: float = 1.0
    filter: Filter = "bilinear"
    antialias: bool = True
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def fitted(self, resize: str, size: int | None) -> Transform:
        """The same with another way to the size.

        ``library``: the library's filter, but the whole image becomes the classifier's input, because a diffusion
        model's images are already cropped. ``crop``: the library's own centre crop too. ``plain``: bilinear without
        antialias, as the purification papers' code does. ``none``: no resizing. ``size``: another input size.
        """
        size_hw = (size, size) if size is not None else self.size
        if resize == "crop":
            return replace(self, size=size_hw)
        if resize == "plain":
            return replace(self, size=size_hw, crop_share=1.0, filter="bilinear", antialias=False)
        return replace(self, size=size_hw, crop_share=1.0)


class Resize(nn.Module):
    """[B, C, H, W] -> [B, C, h, w] by the matrices of a separable filter.

    Args:
        source: H and W.
        target: h and w, of the resized image before the crop.
        crop: rows and columns kept in the middle; None: all.
    """

    rows: Tensor
    columns: Tensor

    def __init__(
        self,
        source: tuple[int, int],
        target: tuple[int, int],
        filter: Filter = "bilinear",
        antialias: bool = True,
        crop: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        kept = crop or target
        matrices = [_centre(_matrix(n, m, filter, antialias), k) for n, m, k in zip(source, target, kept, strict=True)]
        self.register_buffer("rows", matrices[0].contiguous(), persistent=False)
        self.register_buffer("columns", matrices[1].t().contiguous(), persistent=False)
        self.overshoots = filter == "bicubic" and source != target

    def forward(self, x: Tensor) -> Tensor:
        x = torch.matmul(torch.matmul(self.rows, x), self.columns)
        return x.clamp(0.0, 1.0) if self.overshoots else x


class Preprocessed(nn.Module):
    """A library's classifier with its preprocessing: image [B, C, H, W] in [0, 1] -> logits [B, N].

    Args:
        network: what gets the preprocessed image; logits as a tensor, or an object with ``logits``.
        transform: what happens before.
        source: H and W of the images; None: those of the transform.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, transform: Transform, source: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.network = network
        self.transform = transform
        source = source or transform.size
        whole = transform.crop_share >= 1.0
        # A library scales the shorter side to size / crop_pct and then cuts the middle out.
        resized = transform.size if whole else _scaled(source, transform)
        self.resize: Resize | None = None
        if resized != source or not whole:
            if any(r < s for r, s in zip(resized, transform.size, strict=True)):
                raise ExportError(f"an image of {source[0]} x {source[1]} is too narrow for a crop of {transform.size}")
            self.resize = Resize(source, resized, transform.filter, transform.antialias, transform.size)
        self.normalises = transform.mean is not None and transform.std is not None
        for name, values in (("mean", transform.mean or (0.0,)), ("std", transform.std or (1.0,))):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32)[:, None, None], persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        x = image if self.resize is None else self.resize(image)
        if self.normalises:
            x = (x - self.mean) / self.std
        output = self.network(x)
        logits: Tensor = output if isinstance(output, Tensor) else output.logits
        return logits

    def extra_repr(self) -> str:
        return describe(self.transform)


def describe(transform: Transform) -> str:
    """One line for people."""
    h, w = transform.size
    parts = [f"{transform.filter}{'' if transform.antialias else ' without antialias'} to {h} x {w}"]
    if transform.crop_share < 1.0:
        parts.append(f"middle {100 * transform.crop_share:.3g} %")
    if transform.mean is not None and transform.std is not None:
        parts.append(f"mean {_list(transform.mean)}, std {_list(transform.std)}")
    return "; ".join(parts)


def _scaled(source: tuple[int, int], transform: Transform) -> tuple[int, int]:
    """Height and width before the crop: the shorter side becomes size / crop_share, the other one follows."""
    shorter = math.floor(min(transform.size) / transform.crop_share + 1e-6)
    factor = shorter / min(source)
    return max(shorter, int(source[0] * factor)), max(shorter, int(source[1] * factor))


def _matrix(source: int, target: int, filter: Filter, antialias: bool) -> Tensor:
    """[target, source] float32: the weights of one axis, with half-pixel centres."""
    if source == target:
        return torch.eye(source)
    # Resizing the rows of an identity matrix gives the weights of each output row.
    image = torch.eye(source, dtype=torch.float64)[None, None]
    if filter == "nearest":
        return F.interpolate(image, size=(target, source), mode="nearest-exact")[0, 0].float()
    matrix = F.interpolate(image, size=(target, source), mode=filter, align_corners=False, antialias=antialias)
    return matrix[0, 0].float()


def _centre(matrix: Tensor, kept: int) -> Tensor:
    start = round((matrix.shape[0] - kept) / 2.0)
    return matrix[start : start + kept]


def _list(values: Sequence[float]) -> str:
    return ", ".join(f"{v:.4g}" for v in values)
