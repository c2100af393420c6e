"""Reductions, softmax and what else looks along an axis."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .table import OPERATORS, Node, Operator, ints, operator

_Reduce = Callable[[Tensor, list[int], bool], Tensor]


def _product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted((a % x.ndim for a in axes), reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


_REDUCE: dict[str, _Reduce] = {
    "ReduceMean": lambda x, axes, keep: x.mean(axes, keepdim=keep),
    "ReduceSum": lambda x, axes, keep: x.sum(axes, keepdim=keep),
    "ReduceMax": lambda x, axes, keep: x.amax(axes, keepdim=keep),
    "ReduceMin": lambda x, axes, keep: x.amin(axes, keepdim=keep),
    "ReduceProd": _product,
    "ReduceL1": lambda x, axes, keep: x.abs().sum(axes, keepdim=keep),
    # vector_norm: its gradient at 0 is 0
    "ReduceL2": lambda x, axes, keep: torch.linalg.vector_norm(x, dim=axes, keepdim=keep),
    "ReduceSumSquare": lambda x, axes, keep: (x * x).sum(axes, keepdim=keep),
    "ReduceLogSum": lambda x, axes, keep: x.sum(axes, keepdim=keep).log(),
    "ReduceLogSumExp": lambda x, axes, keep: torch.logsumexp(x, axes, keepdim=keep),
}


def _reduction(function: _Reduce) -> Operator:
    def run(node: Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
        # an input from opset 18 on (ReduceSum: 13), an attribute before
        chosen = ints(axes) if axes is not None else [int(a) for a in node.get("axes", [])]
        if not chosen:
            if node.get("noop_with_empty_axes", 0):
                return x
            chosen = list(range(x.ndim))
        return function(x, chosen, bool(node.get("keepdims", 1))) if chosen else x

    return run


OPERATORS.update({name: _reduction(function) for name, function in _REDUCE.items()})


@operator("Softmax")
def softmax(node: Node, x: Tensor) -> Tensor:
    return torch.softmax(x, node.get("axis", -1))


@operator("LogSoftmax")
def log_softmax(node: Node, x: Tensor) -> Tensor:
    return torch.log_softmax(x, node.get("axis", -1))


@operator("ArgMax", "ArgMin")
def arg_extreme(node: Node, x: Tensor) -> Tensor:
    if node.get("select_last_index", 0):
        raise node.refuse("select_last_index")
    find = torch.argmax if node.operator == "ArgMax" else torch.argmin
    return find(x, node.get("axis", 0), keepdim=bool(node.get("keepdims", 1)))


@operator("CumSum")
def cumsum(node: Node, x: Tensor, axis: Tensor) -> Tensor:
    if node.get("exclusive", 0) or node.get("reverse", 0):
        raise node.refuse("an exclusive or reverse sum")
    return x.cumsum(int(axis))


@operator("TopK")
def top_k(node: Node, x: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    largest, ordered = bool(node.get("largest", 1)), bool(node.get("sorted", 1))
    values, indices = torch.topk(x, int(k), node.get("axis", -1), largest, ordered)
    return values, indices
