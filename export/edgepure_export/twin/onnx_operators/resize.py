"""Resize: per axis a choice of elements (nearest) or a product with a matrix (linear, cubic, antialiased)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .table import Node, ints, numbers, operator

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class _Axis:
    """How one axis is resized; hashable, so that matrices are kept."""

    source: int
    target: int
    scale: float
    mode: str
    coordinates: str
    rounding: str
    cubic_a: float
    antialias: bool
    exclude_outside: bool


@operator("Resize")
def resize(
    node: Node, x: Tensor, roi: Tensor | None = None, scales: Tensor | None = None, sizes: Tensor | None = None
) -> Tensor:
    if node.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise node.refuse("a resize that keeps the aspect ratio")
    axes = [a % x.ndim for a in node.get("axes", range(x.ndim))]
    if sizes is not None and numbers(sizes):
        targets = ints(sizes)
        there = [x.shape[axis] for axis in axes]
        factors = [1.0 if target == side else target / side for side, target in zip(there, targets, strict=True)]
    elif scales is not None and numbers(scales):
        factors = [float(s) for s in numbers(scales)]
        sides = [(x.shape[axis], s) for axis, s in zip(axes, factors, strict=True)]
        targets = [side if s == 1.0 else int(np.floor(side * s)) for side, s in sides]
    else:
        raise node.refuse("a resize without scales and sizes")
    for axis, target, factor in zip(axes, targets, factors, strict=True):
        if target == x.shape[axis] and factor == 1.0:
            continue
        how = _Axis(
            source=x.shape[axis],
            target=target,
            scale=factor,
            mode=node.get("mode", "nearest"),
            coordinates=node.get("coordinate_transformation_mode", "half_pixel"),
            rounding=node.get("nearest_mode", "round_prefer_floor"),
            cubic_a=node.get("cubic_coeff_a", -0.75),
            antialias=bool(node.get("antialias", 0)),
            exclude_outside=bool(node.get("exclude_outside", 0)),
        )
        if how.coordinates not in _COORDINATES:
            raise node.refuse(f"coordinate_transformation_mode {how.coordinates!r}")
        x = _nearest(x, axis, how) if how.mode == "nearest" else _weighted(x, axis, how)
    return x


def _nearest(x: Tensor, axis: int, how: _Axis) -> Tensor:
    chosen = _chosen(how)
    repeats, rest = divmod(how.target, how.source)
    if not rest and np.array_equal(chosen, np.arange(how.target) // repeats):
        return x.repeat_interleave(repeats, axis)
    return x.index_select(axis, torch.from_numpy(chosen).to(x.device))


def _weighted(x: Tensor, axis: int, how: _Axis) -> Tensor:
    return (x.movedim(axis, -1) @ _matrix(how, x.dtype, x.device)).movedim(-1, axis)


_COORDINATES = ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric")


def _centres(how: _Axis) -> Float64:
    """Where the elements of the result lie in the source."""
    i = np.arange(how.target, dtype=np.float64)
    if how.coordinates == "asymmetric":
        return i / how.scale
    if how.coordinates == "align_corners":
        return i * (how.source - 1) / (how.target - 1) if how.target > 1 else np.zeros(1)
    if how.coordinates == "pytorch_half_pixel" and how.target == 1:
        return np.zeros(1)
    centre = (i + 0.5) / how.scale - 0.5
    if how.coordinates == "half_pixel_symmetric":
        adjustment = how.target / (how.scale * how.source)
        centre += 0.5 * how.source * (1.0 - adjustment)
    return centre


@lru_cache(maxsize=256)
def _chosen(how: _Axis) -> NDArray[np.int64]:
    centre = _centres(how)
    rounded = {
        "floor": np.floor(centre),
        "ceil": np.ceil(centre),
        "round_prefer_floor": np.ceil(centre - 0.5),
        "round_prefer_ceil": np.floor(centre + 0.5),
    }[how.rounding]
    return np.clip(rounded, 0, how.source - 1).astype(np.int64)


@lru_cache(maxsize=256)
def _matrix(how: _Axis, dtype: torch.dtype, device: torch.device) -> Tensor:
    """[source, target]: the weights of every element of the result. Taps outside fall on the edge, or are left out."""
    centre = _centres(how)[:, None]
    stretch = max(1.0, 1.0 / how.scale) if how.antialias else 1.0
    reach = (2.0 if how.mode == "cubic" else 1.0) * stretch
    places = np.floor(centre - reach) + np.arange(int(np.ceil(2.0 * reach)) + 2)
    weights = _kernel((places - centre) / stretch, how)
    if how.exclude_outside:
        weights[(places < 0) | (places > how.source - 1)] = 0.0
    weights /= weights.sum(axis=1, keepdims=True)
    matrix = np.zeros((how.source, how.target))
    rows = np.clip(places, 0, how.source - 1).astype(np.int64)
    np.add.at(matrix, (rows, np.arange(how.target)[:, None]), weights)
    return torch.from_numpy(matrix).to(device, dtype)


def _kernel(distance: Float64, how: _Axis) -> Float64:
    d = np.abs(distance)
    if how.mode == "linear":
        return np.maximum(1.0 - d, 0.0)
    a = how.cubic_a
    near = ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0
    far = ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a
    return np.where(d <= 1.0, near, np.where(d < 2.0, far, 0.0))
