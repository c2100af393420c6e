"""QuantizeLinear and DequantizeLinear with a straight-through gradient.

A quantised tensor is carried as floats that hold whole numbers (or FP8 values), so that gradients pass through it: the
gradient of rounding is that of the identity, and 0 where the value saturates. Weights that a graph stores as integers
are dequantised once, when the graph is loaded.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .table import COMPUTED, DTYPES, Node, operator, together

_FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2)


@operator("QuantizeLinear")
def quantize(node: Node, x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
    target = zero.dtype if zero is not None else DTYPES[node.get("output_dtype", 0) or 2]  # 2: uint8, ONNX's default
    scaled = x / _spread(node, x, scale).to(x.dtype)
    if target in _FLOAT8:
        limit = torch.finfo(target).max
        scaled = scaled.clamp(-limit, limit)
        return _straight_through(scaled, scaled.detach().to(target).to(x.dtype))
    limits = torch.iinfo(target)
    whole = _straight_through(scaled, scaled.detach().round())
    if zero is not None:
        whole = whole + _spread(node, x, zero).to(whole)
    return whole.clamp(limits.min, limits.max)


@operator("DequantizeLinear")
def dequantize(node: Node, x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
    x, scale = together(x, scale)
    values = x.to(scale.dtype)
    if zero is not None and zero.dtype not in _FLOAT8:
        values = values - _spread(node, x, zero).to(values)
    return values * _spread(node, x, scale)


def _spread(node: Node, x: Tensor, parameter: Tensor) -> Tensor:
    """Scale or zero point in a shape that broadcasts: per tensor, per axis, or per block of an axis."""
    if parameter.dtype in _FLOAT8 or (parameter.dtype not in COMPUTED and parameter.dtype != torch.int32):
        parameter = parameter.to(torch.float32)
    if parameter.numel() == 1:
        return parameter.reshape(())
    axis = node.get("axis", 1) % x.ndim
    if parameter.ndim == 1:
        return parameter.reshape([-1 if i == axis else 1 for i in range(x.ndim)])
    blocks: Tensor = parameter.repeat_interleave(node.get("block_size", 0) or 1, axis)
    return blocks.narrow(axis, 0, x.shape[axis])


def _straight_through(value: Tensor, rounded: Tensor) -> Tensor:
    """``rounded`` with the gradient of ``value``. The difference of neighbours is exact, and so is the sum."""
    return value + (rounded - value).detach()
