"""Convolutions, pooling, normalisation and matrix products."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from .table import Node, operator, together

_AVERAGE = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
_MAXIMUM = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}

_Widths = tuple[list[int], list[int]]


@operator("Conv")
def conv(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    rank = x.ndim - 2
    stride, dilation = node.get("strides", [1] * rank), node.get("dilations", [1] * rank)
    before, after = _padding(node, x, list(weight.shape[2:]), stride, dilation)
    if before != after:
        x, before = F.pad(x, _for_pad(before, after)), [0] * rank
    return torch.convolution(x, weight, bias, stride, before, dilation, False, [0] * rank, node.get("group", 1))


@operator("ConvTranspose")
def conv_transpose(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    rank = x.ndim - 2
    if node.get("auto_pad", "NOTSET") != "NOTSET" or "output_shape" in node.attributes:
        raise node.refuse("auto_pad or output_shape of a transposed convolution")
    stride, dilation = node.get("strides", [1] * rank), node.get("dilations", [1] * rank)
    extra, pads = node.get("output_padding", [0] * rank), node.get("pads", [0] * 2 * rank)
    before, after = pads[:rank], pads[rank:]
    if before == after:
        return torch.convolution(x, weight, bias, stride, before, dilation, True, extra, node.get("group", 1))
    full = torch.convolution(x, weight, bias, stride, [0] * rank, dilation, True, extra, node.get("group", 1))
    return F.pad(full, _for_pad([-n for n in before], [-n for n in after]))


@operator("MaxPool")
def max_pool(node: Node, x: Tensor) -> Tensor:
    rank = x.ndim - 2
    kernel, stride = node.attributes["kernel_shape"], node.get("strides", [1] * rank)
    dilation = node.get("dilations", [1] * rank)
    if len(node.outputs) > 1:
        raise node.refuse("the indices of the maxima")
    before, after = _padding(node, x, kernel, stride, dilation)
    if before != after or any(2 * p > k for p, k in zip(before, kernel, strict=True)):
        x, before = F.pad(x, _for_pad(before, after), value=-torch.inf), [0] * rank
    return _MAXIMUM[rank](x, kernel, stride, before, dilation, bool(node.get("ceil_mode", 0)))


@operator("AveragePool")
def average_pool(node: Node, x: Tensor) -> Tensor:
    rank = x.ndim - 2
    kernel, stride = node.attributes["kernel_shape"], node.get("strides", [1] * rank)
    if any(d != 1 for d in node.get("dilations", [])):
        raise node.refuse("a dilated average")
    before, after = _padding(node, x, kernel, stride, [1] * rank)
    ceil, count_pads = bool(node.get("ceil_mode", 0)), bool(node.get("count_include_pad", 0))
    pool = _AVERAGE[rank]
    if before == after and all(2 * p <= k for p, k in zip(before, kernel, strict=True)):
        return pool(x, kernel, stride, before, ceil, count_pads)
    padded = pool(F.pad(x, _for_pad(before, after)), kernel, stride, 0, ceil)
    if count_pads:
        return padded
    ones = F.pad(torch.ones_like(x[:1, :1]), _for_pad(before, after))
    return padded / pool(ones, kernel, stride, 0, ceil)


@operator("GlobalAveragePool")
def global_average_pool(node: Node, x: Tensor) -> Tensor:
    return x.mean(list(range(2, x.ndim)), keepdim=True)


@operator("GlobalMaxPool")
def global_max_pool(node: Node, x: Tensor) -> Tensor:
    return x.amax(list(range(2, x.ndim)), keepdim=True)


@operator("BatchNormalization")
def batch_norm(node: Node, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    if node.get("training_mode", 0):
        raise node.refuse("training mode")
    return F.batch_norm(x, mean, variance, scale, bias, False, 0.0, node.get("epsilon", 1e-5))


@operator("InstanceNormalization")
def instance_norm(node: Node, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    # a group norm with one channel a group: torch's own instance_norm refuses one element
    return torch.group_norm(x, x.shape[1], scale, bias, node.get("epsilon", 1e-5))


@operator("GroupNormalization")
def group_norm(node: Node, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    groups = node.attributes["num_groups"]
    if node.opset < 21:  # scale and bias were one a group
        scale, bias = (v.repeat_interleave(x.shape[1] // groups) for v in (scale, bias))
    return torch.group_norm(x, groups, scale, bias, node.get("epsilon", 1e-5))


@operator("LayerNormalization")
def layer_norm(node: Node, x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    if len(node.outputs) > 1:
        raise node.refuse("mean and deviation of a layer norm")
    shape = x.shape[node.get("axis", -1) :]
    normal = F.layer_norm(x, shape, None, None, node.get("epsilon", 1e-5))
    return normal * scale if bias is None else normal * scale + bias


@operator("MatMul")
def matmul(node: Node, a: Tensor, b: Tensor) -> Tensor:
    return torch.matmul(*together(a, b))


@operator("Gemm")
def gemm(node: Node, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    a = a.T if node.get("transA", 0) else a
    b = b.T if node.get("transB", 0) else b
    alpha: float = node.get("alpha", 1.0)
    beta: float = node.get("beta", 1.0)
    if c is None:
        return alpha * (a @ b)
    if c.ndim <= 2:
        return torch.addmm(c, a, b, beta=beta, alpha=alpha)
    return alpha * (a @ b) + beta * c


@operator("Einsum")
def einsum(node: Node, *values: Tensor) -> Tensor:
    return torch.einsum(node.attributes["equation"], *together(*values))


def _padding(node: Node, x: Tensor, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> _Widths:
    """Padding before and after each axis."""
    rank = x.ndim - 2
    how = node.get("auto_pad", "NOTSET")
    if how == "NOTSET":
        pads = list(node.get("pads", [0] * 2 * rank))
        return pads[:rank], pads[rank:]
    if how == "VALID":
        return [0] * rank, [0] * rank
    total = [
        max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
        for n, k, s, d in zip(x.shape[2:], kernel, stride, dilation, strict=True)
    ]
    small, large = [t // 2 for t in total], [t - t // 2 for t in total]
    return (small, large) if how == "SAME_UPPER" else (large, small)


def _for_pad(before: Sequence[int], after: Sequence[int]) -> list[int]:
    """Widths in the order of `torch.nn.functional.pad`: the last axis first."""
    return [n for pair in reversed(list(zip(before, after, strict=True))) for n in pair]
