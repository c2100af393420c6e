"""ONNX operators as differentiable PyTorch functions, for `edgepure_export.twin.onnx_module`.

`OPERATORS` maps the name of an operator to a function ``(node, *inputs) -> output or outputs``. Importing this package
fills it. To add an operator, write such a function in the file of its kind.
"""

from __future__ import annotations

from . import elementwise, layers, quantize, reductions, resize, shapes
from .table import OPERATORS, Node, Precision

__all__ = ["OPERATORS", "Node", "Precision", "elementwise", "layers", "quantize", "reductions", "resize", "shapes"]
