"""Operators that move, cut and repeat elements. Shapes are int64 tensors on the CPU."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .table import Node, ints, operator, together


@operator("Shape")
def shape(node: Node, x: Tensor) -> Tensor:
    return torch.tensor(x.shape[node.get("start", 0) : node.get("end", None)], dtype=torch.int64)


@operator("Size")
def size(node: Node, x: Tensor) -> Tensor:
    return torch.tensor(x.numel(), dtype=torch.int64)


@operator("Reshape")
def reshape(node: Node, x: Tensor, target: Tensor) -> Tensor:
    sizes = ints(target)
    if not node.get("allowzero", 0):
        sizes = [x.shape[i] if n == 0 else n for i, n in enumerate(sizes)]
    return x.reshape(sizes)


@operator("Flatten")
def flatten(node: Node, x: Tensor) -> Tensor:
    axis = node.get("axis", 1)
    axis = axis + x.ndim if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


@operator("Transpose")
def transpose(node: Node, x: Tensor) -> Tensor:
    return x.permute(node.get("perm", list(range(x.ndim))[::-1]))


@operator("Squeeze")
def squeeze(node: Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
    if axes is None:
        return x.squeeze()
    return x.squeeze(ints(axes))


@operator("Unsqueeze")
def unsqueeze(node: Node, x: Tensor, axes: Tensor) -> Tensor:
    places = ints(axes)
    rank = x.ndim + len(places)
    for axis in sorted(a % rank for a in places):
        x = x.unsqueeze(axis)
    return x


@operator("Concat")
def concat(node: Node, *values: Tensor) -> Tensor:
    return torch.cat(together(*values), dim=node.attributes["axis"])


@operator("Split")
def split(node: Node, x: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, ...]:
    axis = node.get("axis", 0)
    if sizes is not None:
        return torch.split(x, ints(sizes), dim=axis)
    return torch.split(x, -(-x.shape[axis] // len(node.outputs)), dim=axis)


@operator("Slice")
def slice_(
    node: Node, x: Tensor, starts: Tensor, ends: Tensor, axes: Tensor | None = None, steps: Tensor | None = None
) -> Tensor:
    first, last = ints(starts), ints(ends)
    along = ints(axes) if axes is not None else list(range(len(first)))
    strides = ints(steps) if steps is not None else [1] * len(first)
    for start, end, axis, step in zip(first, last, along, strides, strict=True):
        taken = range(*slice(start, end, step).indices(x.shape[axis]))
        if step > 0:
            key = [slice(None)] * (axis % x.ndim) + [slice(taken.start, max(taken.stop, taken.start), step)]
            x = x[tuple(key)]
        else:
            x = x.index_select(axis, torch.tensor(list(taken), dtype=torch.int64, device=x.device))
    return x


@operator("Gather")
def gather(node: Node, x: Tensor, indices: Tensor) -> Tensor:
    axis = node.get("axis", 0) % x.ndim
    if indices.ndim == 0 and indices.device.type == "cpu":
        return x.select(axis, int(indices))
    indices = _not_negative(indices.to(x.device), x.shape[axis])
    taken = x.index_select(axis, indices.reshape(-1))
    return taken.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])


@operator("GatherElements")
def gather_elements(node: Node, x: Tensor, indices: Tensor) -> Tensor:
    axis = node.get("axis", 0)
    return torch.gather(x, axis, _not_negative(indices.to(x.device), x.shape[axis]))


@operator("GatherND")
def gather_nd(node: Node, x: Tensor, indices: Tensor) -> Tensor:
    if node.get("batch_dims", 0):
        raise node.refuse("batch_dims")
    return x[_positions(indices, x)]


@operator("ScatterND")
def scatter_nd(node: Node, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    if node.get("reduction", "none") != "none":
        raise node.refuse("a reduction")
    return x.index_put(_positions(indices, x), updates)


@operator("Expand")
def expand(node: Node, x: Tensor, target: Tensor) -> Tensor:
    return x.expand(np.broadcast_shapes(tuple(x.shape), tuple(ints(target))))


@operator("Tile")
def tile(node: Node, x: Tensor, repeats: Tensor) -> Tensor:
    return x.repeat(ints(repeats))


@operator("ConstantOfShape")
def constant_of_shape(node: Node, target: Tensor) -> Tensor:
    value = node.get("value", None)
    if value is None:
        return torch.zeros(ints(target), dtype=node.precision.floating)
    filled: Tensor = value.reshape(()).expand(ints(target)).clone()
    return filled.to(node.precision.floating) if filled.dtype == torch.float32 else filled


@operator("Range")
def range_(node: Node, start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    return torch.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype, device=start.device)


@operator("Trilu")
def trilu(node: Node, x: Tensor, k: Tensor | None = None) -> Tensor:
    diagonal = int(k) if k is not None else 0
    return torch.triu(x, diagonal) if node.get("upper", 1) else torch.tril(x, diagonal)


@operator("Pad")
def pad(node: Node, x: Tensor, pads: Tensor, value: Tensor | None = None, axes: Tensor | None = None) -> Tensor:
    mode = node.get("mode", "constant")
    chosen = [a % x.ndim for a in ints(axes)] if axes is not None else list(range(x.ndim))
    widths = ints(pads)
    both = dict(zip(chosen, zip(widths[: len(chosen)], widths[len(chosen) :], strict=True), strict=True))
    if mode == "constant":
        reverse = [w for axis in reversed(range(x.ndim)) for w in both.get(axis, (0, 0))]
        return F.pad(x, reverse, value=float(value) if value is not None else 0.0)
    for axis, (before, after) in both.items():
        if before or after:
            places = torch.arange(-before, x.shape[axis] + after)
            x = x.index_select(axis, _inside(node, places, x.shape[axis], mode).to(x.device))
    return x


@operator("DepthToSpace")
def depth_to_space(node: Node, x: Tensor) -> Tensor:
    n = node.attributes["blocksize"]
    b, c, h, w = x.shape
    if node.get("mode", "DCR") == "CRD":
        return F.pixel_shuffle(x, n)
    return x.reshape(b, n, n, c // (n * n), h, w).permute(0, 3, 4, 1, 5, 2).reshape(b, c // (n * n), h * n, w * n)


@operator("SpaceToDepth")
def space_to_depth(node: Node, x: Tensor) -> Tensor:
    n = node.attributes["blocksize"]
    b, c, h, w = x.shape
    return x.reshape(b, c, h // n, n, w // n, n).permute(0, 3, 5, 1, 2, 4).reshape(b, c * n * n, h // n, w // n)


def _inside(node: Node, places: Tensor, count: int, mode: str) -> Tensor:
    """Which element stands at a place outside ``0 .. count - 1``."""
    if mode == "edge":
        return places.clamp(0, count - 1)
    if mode == "wrap":
        return places % count
    if mode == "reflect":
        period = max(2 * (count - 1), 1)
        folded = places % period
        return torch.where(folded < count, folded, period - folded)
    raise node.refuse(f"mode {mode!r}")


def _not_negative(indices: Tensor, count: int) -> Tensor:
    return torch.where(indices < 0, indices + count, indices)


def _positions(indices: Tensor, x: Tensor) -> tuple[Tensor, ...]:
    return tuple(_not_negative(i, n) for i, n in zip(indices.to(x.device).unbind(-1), x.shape, strict=False))
