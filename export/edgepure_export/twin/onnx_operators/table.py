"""The table of operators and what every one of them is told about its node."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from onnx import TensorProto
from torch import Tensor

from edgepure.errors import BundleError

#: ``(node, *inputs)``; an input that the node leaves out is None, trailing ones are not passed.
Operator = Callable[..., Any]

OPERATORS: dict[str, Operator] = {}

#: Torch dtypes of ONNX element types.
DTYPES: dict[int, torch.dtype] = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.DOUBLE: torch.float64,
    TensorProto.FLOAT16: torch.float16,
    TensorProto.BFLOAT16: torch.bfloat16,
    TensorProto.FLOAT8E4M3FN: torch.float8_e4m3fn,
    TensorProto.FLOAT8E5M2: torch.float8_e5m2,
    TensorProto.INT8: torch.int8,
    TensorProto.UINT8: torch.uint8,
    TensorProto.INT16: torch.int16,
    TensorProto.UINT16: torch.uint16,
    TensorProto.INT32: torch.int32,
    TensorProto.INT64: torch.int64,
    TensorProto.BOOL: torch.bool,
}
#: Types that computation is done in; the others are storage or indices.
COMPUTED = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
#: Floating inputs that are settings and not data, by position: they stay on the CPU, where Python reads them.
SETTINGS: dict[str, tuple[int, ...]] = {"Pad": (2,), "Range": (0, 1, 2), "Resize": (1, 2)}


@dataclass
class Precision:
    """What the graph's float32 is at the moment: float32, or float64 after ``module.double()``."""

    floating: torch.dtype = torch.float32

    def dtype(self, code: int) -> torch.dtype:
        """The torch dtype for an ONNX element type. In float64 mode nothing is rounded to fewer bits."""
        dtype = DTYPES[code]
        if dtype == torch.float32 or (dtype in COMPUTED and self.floating == torch.float64):
            return self.floating
        return dtype


@dataclass(frozen=True)
class Node:
    """One node of a graph.

    Attributes:
        operator, name, inputs, outputs, attributes: as in the graph; a left-out input is "".
        opset: version of the operator set.
        precision: shared by all nodes of a module.
    """

    operator: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    opset: int = 20
    precision: Precision = field(default_factory=Precision)

    def get(self, attribute: str, default: Any) -> Any:
        """Value of an attribute."""
        return self.attributes.get(attribute, default)

    def refuse(self, what: str) -> BundleError:
        """The error for a variant of a known operator that is not done."""
        return BundleError(
            f"{self.operator} {self.name!r}: {what} is not among what the PyTorch twin can differentiate; "
            "attack the source model in its place",
            code="E-twin-attribute",
        )


def operator(*names: str) -> Callable[[Operator], Operator]:
    """Enter a function in the table."""

    def enter(function: Operator) -> Operator:
        for name in names:
            OPERATORS[name] = function
        return function

    return enter


def together(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Tensors on one device. Shapes and index constants stay on the CPU until they meet data that is elsewhere."""
    device = next((t.device for t in tensors if t.device.type != "cpu"), None)
    return tensors if device is None else tuple(t.to(device) for t in tensors)


class Setting(list[Any]):
    """A vector of Python numbers in place of a tensor: what is known before anything is computed."""


def numbers(values: Tensor | Setting) -> list[Any]:
    """A vector as Python numbers."""
    return values if isinstance(values, Setting) else values.reshape(-1).tolist()


def ints(values: Tensor | Setting) -> list[int]:
    """A vector of axes, sizes or positions as Python numbers; sizes that are traced stay what they are."""
    return [int(v) if isinstance(v, float) else v for v in numbers(values)]
