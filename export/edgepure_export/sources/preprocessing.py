"""The preprocessing of a classifier as part of its graph: resize, crop and normalise, exactly as its library does.

Resizing is two matrix products with constant weights. They are those of the library's own filter (antialiased as in
Pillow), so every engine computes the same; ONNX's Resize has no antialias in TensorRT, and its variants differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from edgepure.errors import ExportError

from ..graphs.window import Window

Filter = Literal["bilinear", "bicubic", "nearest", "lanczos", "box", "hamming"]

#: How an image gets to the classifier's size; see `Transform.fitted`.
RESIZES = ("library", "crop", "plain", "none")
#: Filters that PyTorch does not have.
_PILLOW = {name: Image.Resampling[name.upper()] for name in ("lanczos", "box", "hamming")}


@dataclass(frozen=True)
class Transform:
    """What a library does with an image before its network: resize, cut out the middle, exchange colours, normalise.

    Attributes:
        size: height and width that the network gets; None: those that the image comes with.
        resized: before the middle is cut out: the length of the shorter side (the other one follows), or height and
            width; None: ``size``, so that nothing is cut off.
        covers: with height and width in ``resized``: keep the sides' ratio, and cover both.
        untouched: nothing is resized, the middle is cut out of the image as it comes.
        floors: the odd pixel of a crop; False: the place of the crop is rounded as torchvision does.
        filter: of the resizing.
        antialias: a wider filter when the image shrinks, as Pillow does.
        mean, std: per channel, for images in [0, 1]; None: no normalisation.
        bgr: the network wants blue first; ``mean`` and ``std`` are in the network's order.
    """

    size: tuple[int, int] | None
    resized: int | tuple[int, int] | None = None
    filter: Filter = "bilinear"
    antialias: bool = True
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    covers: bool = False
    untouched: bool = False
    floors: bool = False
    bgr: bool = False

    def fitted(self, resize: str, size: int | None) -> Transform:
        """The same with another way to the size.

        ``library``: the library's filter, but the whole image becomes the classifier's input, because a diffusion
        model's images are already cropped. ``crop``: the library's own centre crop too. ``plain``: bilinear without
        antialias, as the purification papers' code does. ``none``: no resizing. ``size``: another input size.
        """
        size_hw = (size, size) if size is not None else self.size
        if self.size is None and size is None and resize != "none":  # the library itself keeps the whole image
            return self if resize != "plain" else replace(self, filter="bilinear", antialias=False)
        if resize == "none":
            return replace(self, size=None, resized=None, covers=False, untouched=False)
        if resize == "plain":
            return replace(
                self, size=size_hw, resized=None, covers=False, untouched=False, filter="bilinear", antialias=False
            )
        if resize == "crop" or (self.untouched and size is None):
            return self if size is None else replace(self, size=size_hw, resized=_in_proportion(self, size))
        if self.resized is not None and self.size is not None and not self._cuts():
            return self  # smaller than what the network gets: the library puts black around it
        return replace(self, size=size_hw, resized=None, covers=False, untouched=False)

    def steps(self, source: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
        """Height and width of an image of this size after resizing, and after cutting out its middle."""
        size = self.size or source
        if self.untouched:
            return source, size
        if self.resized is None:
            return size, size
        h, w = source
        if isinstance(self.resized, int):
            short = self.resized
            resized = (short, int(short * w / h)) if h <= w else (int(short * h / w), short)
            return resized, self.size or resized
        if not self.covers:
            return self.resized, size
        ratio = min(h / self.resized[0], w / self.resized[1])
        return (round(h / ratio), round(w / ratio)), size

    def _cuts(self) -> bool:
        assert self.size is not None and self.resized is not None
        before = (self.resized,) * 2 if isinstance(self.resized, int) else self.resized
        return all(b >= s for b, s in zip(before, self.size, strict=True))


def _in_proportion(transform: Transform, size: int) -> int | tuple[int, int] | None:
    """The length before the crop, for another size after it."""
    if transform.resized is None or transform.size is None:
        return transform.resized
    if isinstance(transform.resized, int):
        return round(transform.resized * size / min(transform.size))
    h, w = (round(r * size / s) for r, s in zip(transform.resized, transform.size, strict=True))
    return h, w


class Resize(nn.Module):
    """[B, C, H, W] -> [B, C, h, w] by the matrices of a separable filter.

    Args:
        source: H and W.
        target: h and w, of the resized image before the crop.
        crop: rows and columns kept in the middle, black around the image where it has fewer; None: all.
        floors: see `Transform`.
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
        floors: bool = False,
    ) -> None:
        super().__init__()
        kept = crop or target
        matrices = [
            _centre(_matrix(n, m, filter, antialias), k, floors) for n, m, k in zip(source, target, kept, strict=True)
        ]
        self.register_buffer("rows", matrices[0].contiguous(), persistent=False)
        self.register_buffer("columns", matrices[1].t().contiguous(), persistent=False)
        self.overshoots = filter in ("bicubic", "lanczos") and source != target

    def forward(self, x: Tensor) -> Tensor:
        x = torch.matmul(torch.matmul(self.rows, x), self.columns)
        return x.clamp(0.0, 1.0) if self.overshoots else x


class Preprocessed(nn.Module):
    """A library's classifier with its preprocessing: image [B, C, H, W] in [0, 1] -> logits [B, N].

    Args:
        network: what gets the preprocessed image; logits as a tensor, or an object with ``logits``, or the outputs of
            a task by name.
        transform: what happens before.
        source: H and W of the images; None: those of the transform.

    Raises:
        ExportError: neither the images nor the transform have a size.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, transform: Transform, source: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.network = network
        self.transform = transform
        source = source or transform.size
        if source is None:
            raise ExportError(
                "this classifier takes images of any size; say which (image_size, --image CxHxW)",
                code="E-preprocessing-size",
            )
        resized, kept = transform.steps(source)
        self.input_size = kept
        self.window = Window(*(_window(*sides, transform.floors) for sides in zip(source, resized, kept, strict=True)))
        self.resize: Resize | None = None
        if not resized == kept == source:
            self.resize = Resize(source, resized, transform.filter, transform.antialias, kept, transform.floors)
        self.normalises = transform.mean is not None and transform.std is not None
        for name, values in (("mean", transform.mean or (0.0,)), ("std", transform.std or (1.0,))):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32)[:, None, None], persistent=False)

    def preprocess(self, image: Tensor) -> Tensor:
        """What the network gets."""
        x = image if self.resize is None else self.resize(image)
        if self.transform.bgr:
            x = x.flip(1)
        return (x - self.mean) / self.std if self.normalises else x

    def forward(self, image: Tensor) -> Any:
        output = self.network(self.preprocess(image))
        # A ModelOutput of transformers is a dictionary too, with `logits` of its own.
        return output if isinstance(output, Tensor) or type(output) is dict else output.logits

    def extra_repr(self) -> str:
        return describe(self.transform)


def describe(transform: Transform) -> str:
    """One line for people."""
    way = f"{transform.filter}{'' if transform.antialias else ' without antialias'}"
    parts = []
    if transform.untouched or (transform.size is None and transform.resized is None):
        parts.append("not resized")
    elif isinstance(transform.resized, int):
        parts.append(f"{way}, shorter side to {transform.resized}")
    elif transform.resized is not None or transform.size is not None:
        h, w = transform.resized or transform.size or (0, 0)
        parts.append(f"{way} to {h} x {w}")
    if transform.size is not None and (transform.resized is not None or transform.untouched):
        parts.append(f"middle {transform.size[0]} x {transform.size[1]}")
    if transform.bgr:
        parts.append("BGR")
    if transform.mean is not None and transform.std is not None:
        parts.append(f"mean {_list(transform.mean)}, std {_list(transform.std)}")
    return "; ".join(parts)


def _matrix(source: int, target: int, filter: Filter, antialias: bool) -> Tensor:
    """[target, source] float32: the weights of one axis, with half-pixel centres."""
    if source == target:
        return torch.eye(source)
    # Resizing the rows of an identity matrix gives the weights of each output row.
    if filter in _PILLOW:
        image = Image.fromarray(np.eye(source, dtype=np.float32)).resize((source, target), _PILLOW[filter])
        return torch.from_numpy(np.array(image))
    eye = torch.eye(source, dtype=torch.float64)[None, None]
    if filter == "nearest":
        return F.interpolate(eye, size=(target, source), mode="nearest-exact")[0, 0].float()
    matrix = F.interpolate(eye, size=(target, source), mode=filter, align_corners=False, antialias=antialias)
    return matrix[0, 0].float()


def _centre(matrix: Tensor, kept: int, floors: bool) -> Tensor:
    """The middle rows; black around them where there are too few."""
    start = _start(matrix.shape[0], kept, floors)
    if start < 0 or matrix.shape[0] < kept:
        return F.pad(matrix, (0, 0, -start, kept - matrix.shape[0] + start))
    return matrix[start : start + kept]


def _start(resized: int, kept: int, floors: bool) -> int:
    """The first row of the middle."""
    spare = resized - kept
    if spare < 0:
        return -(-spare // 2)
    return spare // 2 if floors else round(spare / 2.0)


def _window(source: int, resized: int, kept: int, floors: bool) -> tuple[float, float]:
    """Edges of the middle in pixels of the image before it was resized."""
    start = _start(resized, kept, floors)
    return start * source / resized, (start + kept) * source / resized


def _list(values: Sequence[float]) -> str:
    return ", ".join(f"{v:.4g}" for v in values)
