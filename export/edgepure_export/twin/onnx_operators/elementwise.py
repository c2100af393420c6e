"""Operators that work on every element alone, and casts."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional as F

from .table import OPERATORS, Node, Operator, operator, together


def _sqrt(x: Tensor) -> Tensor:
    """Square root with gradient 0 at 0, where autograd has infinity (and NaN after the square that is often before)."""
    zero = x == 0
    return torch.where(zero, 0.0, torch.where(zero, 1.0, x).sqrt())


_UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "Abs": torch.abs,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "Identity": lambda x: x,
    "IsNaN": torch.isnan,
    "Log": torch.log,
    "Mish": F.mish,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Reciprocal": torch.reciprocal,
    "Relu": torch.relu,
    "Round": torch.round,
    "Sigmoid": torch.sigmoid,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Softsign": F.softsign,
    "Sqrt": _sqrt,
    "Tan": torch.tan,
    "Tanh": torch.tanh,
    "HardSwish": F.hardswish,
    "Softplus": lambda x: torch.logaddexp(x, torch.zeros_like(x)),
}
_BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Add": torch.add,
    "Sub": torch.sub,
    "Mul": torch.mul,
    "And": torch.logical_and,
    "Or": torch.logical_or,
    "Xor": torch.logical_xor,
    "Equal": torch.eq,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "PRelu": lambda x, slope: torch.where(x < 0, slope * x, x),
}
_VARIADIC: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Sum": torch.add,
    "Max": torch.maximum,
    "Min": torch.minimum,
}


def _one(function: Callable[[Tensor], Tensor]) -> Operator:
    return lambda node, x: function(x)


def _two(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    return lambda node, a, b: function(*together(a, b))


def _many(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    return lambda node, *values: reduce(function, together(*values))


OPERATORS.update({name: _one(function) for name, function in _UNARY.items()})
OPERATORS.update({name: _two(function) for name, function in _BINARY.items()})
OPERATORS.update({name: _many(function) for name, function in _VARIADIC.items()})


@operator("Mean")
def mean(node: Node, *values: Tensor) -> Tensor:
    return reduce(torch.add, together(*values)) / len(values)


@operator("Div")
def div(node: Node, a: Tensor, b: Tensor) -> Tensor:
    a, b = together(a, b)
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


@operator("Mod")
def mod(node: Node, a: Tensor, b: Tensor) -> Tensor:
    a, b = together(a, b)
    return torch.fmod(a, b) if node.get("fmod", 0) else torch.remainder(a, b)


@operator("Pow")
def power(node: Node, x: Tensor, y: Tensor) -> Tensor:
    """Roots have gradient 0 at 0, as `_sqrt` has."""
    x, y = together(x, y)
    if not x.is_floating_point():
        return x.pow(y).to(x.dtype)
    y = y.to(x.dtype)
    root = (x == 0) & (y > 0) & (y < 1)
    return torch.where(root, 0.0, torch.where(root, 1.0, x).pow(y))


@operator("Clip")
def clip(node: Node, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    if low is not None:
        x, low = together(x, low)
        x = torch.clamp(x, min=low)
    if high is not None:
        x, high = together(x, high)
        x = torch.clamp(x, max=high)
    return x


@operator("Where")
def where(node: Node, condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    condition, a, b = together(condition, a, b)
    return torch.where(condition, a, b)


@operator("IsInf")
def is_inf(node: Node, x: Tensor) -> Tensor:
    positive, negative = node.get("detect_positive", 1), node.get("detect_negative", 1)
    return (torch.isposinf(x) & bool(positive)) | (torch.isneginf(x) & bool(negative))


@operator("LeakyRelu")
def leaky_relu(node: Node, x: Tensor) -> Tensor:
    return F.leaky_relu(x, node.get("alpha", 0.01))


@operator("Elu")
def elu(node: Node, x: Tensor) -> Tensor:
    return F.elu(x, node.get("alpha", 1.0))


@operator("Celu")
def celu(node: Node, x: Tensor) -> Tensor:
    return F.celu(x, node.get("alpha", 1.0))


@operator("Selu")
def selu(node: Node, x: Tensor) -> Tensor:
    alpha, gamma = node.get("alpha", 1.6732632423543772), node.get("gamma", 1.0507009873554805)
    bent: Tensor = gamma * torch.where(x > 0, x, alpha * torch.expm1(torch.clamp(x, max=0.0)))
    return bent


@operator("Gelu")
def gelu(node: Node, x: Tensor) -> Tensor:
    return F.gelu(x, approximate=node.get("approximate", "none"))


@operator("HardSigmoid")
def hard_sigmoid(node: Node, x: Tensor) -> Tensor:
    slope: float = node.get("alpha", 0.2)
    offset: float = node.get("beta", 0.5)
    return torch.clamp(slope * x + offset, 0.0, 1.0)


@operator("Cast")
def cast(node: Node, x: Tensor) -> Tensor:
    """Rounding to fewer bits has the gradient of the identity."""
    return x.to(node.precision.dtype(node.attributes["to"]))


@operator("CastLike")
def cast_like(node: Node, x: Tensor, like: Tensor) -> Tensor:
    return x.to(like.dtype)
