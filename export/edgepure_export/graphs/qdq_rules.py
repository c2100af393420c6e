"""The rules of quantization: what stands around the input, the weight, the bias and the output of a heavy operator.

All four look at the same operators (`quantizable`), and a later one needs what an earlier one has found: the unit of an
integer bias is the product of the scales of input and weight.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgepure.engines.kind import Scheme
from edgepure.errors import ExportError

from .quantized_numbers import MAX, Range, parameters, rounded_to
from .rules import Rule, new_constant

#: Which tensor of which node: (node name, ``input`` or ``output``).
Tap = tuple[str, Literal["input", "output"]]

QUANTIZABLE = frozenset({"Conv", "Gemm", "MatMul"})


@dataclass(frozen=True)
class Activation:
    """A quantized activation; ``number``: its scale."""

    q: ir.Value
    scale: ir.Value
    zero: ir.Value
    number: float


class Quantization:
    """What the rules know of one graph, and share.

    Attributes:
        activations: what is quantized already, once for all of its readers.
        units: of a node, the scale of its input, and from the weight's rule on that times the weight's scales,
            [channels].
        done: the nodes that were quantized, in the order of the graph.
    """

    def __init__(
        self, graph: ir.Graph, ranges: Mapping[Tap, Range], scheme: Scheme, smallest: float, keep: Collection[str]
    ) -> None:
        self.graph, self.ranges, self.scheme, self.smallest, self.keep = graph, ranges, scheme, smallest, keep
        self.activations: dict[ir.Value, Activation] = {}
        self.units: dict[ir.Node, NDArray[np.float64]] = {}
        self.done: list[ir.Node] = []

    def quantize(self, value: ir.Value, tap: Tap, before: ir.Node | None) -> Activation:
        """A QuantizeLinear of a value, before a node or (None) behind what makes the value."""
        kind = ir.DataType[self.scheme.activations]
        number, point = parameters(self._range(tap), kind, self.smallest)
        scale = new_constant(self.graph, f"{value.name}_scale", np.array(number, np.float32))
        zero = new_constant(self.graph, f"{value.name}_zero", np.array(point).astype(kind.numpy()))
        out = ir.Value(name=f"{value.name}_{kind.name.lower()}", shape=value.shape, type=ir.TensorType(kind))
        node = ir.Node("", "QuantizeLinear", [value, scale, zero], outputs=[out], name=f"{value.name}/QuantizeLinear")
        if before is None:
            self.graph.insert_after(producer(value), node)
        else:
            self.graph.insert_before(before, node)
        return Activation(out, scale, zero, number)

    def dequantize(
        self, q: ir.Value, scale: ir.Value, zero: ir.Value | None, name: str, before: ir.Node, axis: int | None = None
    ) -> ir.Value:
        """A DequantizeLinear of one reader's own: engines fuse it with that reader."""
        attributes = [] if axis is None else [ir.AttrInt64("axis", axis)]
        out = ir.Value(name=f"{name}_dequantized", shape=q.shape, type=ir.TensorType(ir.DataType.FLOAT))
        inputs = [q, scale] if zero is None else [q, scale, zero]
        self.graph.insert_before(
            before, ir.Node("", "DequantizeLinear", inputs, attributes, outputs=[out], name=f"{name}/DequantizeLinear")
        )
        return out

    def _range(self, tap: Tap) -> Range:
        if tap not in self.ranges:
            raise ExportError(f"no range was measured for the {tap[1]} of {tap[0]}", code="E-quantize-range")
        low, high = self.ranges[tap]
        if not (np.isfinite(low) and np.isfinite(high) and low <= high):
            raise ExportError(
                f"the {tap[1]} of {tap[0]} ranges from {low} to {high}, which cannot be quantized",
                code="E-quantize-range",
            )
        return low, high


class _Around(Rule):
    """A rule about one tensor of an operator that can be quantized, and is not to be kept."""

    pattern = QUANTIZABLE

    def __init__(self, work: Quantization) -> None:
        self.work = work

    def check(self, node: ir.Node) -> bool:
        return node in self.work.units


class QuantizedInput(_Around):
    """The input: one Q before the first of its readers, and a DQ for each reader."""

    def check(self, node: ir.Node) -> bool:
        return node.name not in self.work.keep and quantizable(node)

    def rewrite(self, node: ir.Node) -> None:
        work, name, value = self.work, str(node.name), given(node, 0)
        if value not in work.activations:
            work.activations[value] = work.quantize(value, (name, "input"), node)
        made = work.activations[value]
        node.replace_input_with(0, work.dequantize(made.q, made.scale, made.zero, f"{name}/input", node))
        work.units[node] = np.float64(made.number)
        work.done.append(node)


class QuantizedWeight(_Around):
    """The weight: symmetric, one scale an output channel."""

    def rewrite(self, node: ir.Node) -> None:
        work, name, axis = self.work, str(node.name), channel_axis(node)
        kind, array = ir.DataType[work.scheme.weights], array_of(given(node, 1))
        largest = np.abs(array).max(axis=tuple(i for i in range(array.ndim) if i != axis))
        largest[largest == 0] = largest.max() or 1.0  # any scale does for zeros; a tiny one overflows in some kernels
        scales = np.maximum(largest / MAX[kind], work.smallest)
        bias = bias_of(node)
        if bias is not None:
            # It has to fit into int32 in units of input scale x weight scale; ONNX Runtime makes one of floats, too.
            scales = np.maximum(scales, np.abs(array_of(bias)) / (work.units[node] * 2.0**30))
        scales = scales.astype(np.float32).astype(np.float64)
        rounded = rounded_to(array / scales.reshape([-1 if i == axis else 1 for i in range(array.ndim)]), kind)
        point = work.scheme.conv_weight_zero if node.op_type == "Conv" else 0
        if point:  # int8: from -127..127 to -128..126
            rounded = (rounded.astype(np.int16) + point).astype(kind.numpy())
        q = new_constant(work.graph, f"{name}/weight_{kind.name.lower()}", rounded)
        scale = new_constant(work.graph, f"{name}/weight_scale", scales.astype(np.float32))
        zero = new_constant(work.graph, f"{name}/weight_zero", np.full(len(scales), point).astype(kind.numpy()))
        node.replace_input_with(1, work.dequantize(q, scale, zero, f"{name}/weight", node, axis))
        work.units[node] = work.units[node] * scales


class IntegerBias(_Around):
    """The bias: int32 in units of input scale x weight scale, for engines that want it so."""

    def check(self, node: ir.Node) -> bool:
        return super().check(node) and self.work.scheme.int32_bias and bias_of(node) is not None

    def rewrite(self, node: ir.Node) -> None:
        work, name = self.work, str(node.name)
        scale = work.units[node].astype(np.float32)
        rounded = np.rint(array_of(given(node, 2)) / scale).astype(np.int32)
        q = new_constant(work.graph, f"{name}/bias_int32", rounded)
        value = new_constant(work.graph, f"{name}/bias_scale", scale)
        node.replace_input_with(2, work.dequantize(q, value, None, f"{name}/bias", node, axis=0))


class QuantizedOutput(_Around):
    """The output: Q and DQ behind the node; whoever read its output reads the dequantized one."""

    def check(self, node: ir.Node) -> bool:
        return super().check(node) and node.op_type in self.work.scheme.outputs

    def rewrite(self, node: ir.Node) -> None:
        work, value = self.work, node.outputs[0]
        readers = list(value.uses())
        made = work.quantize(value, (str(node.name), "output"), None)
        out = ir.Value(name=f"{value.name}_dequantized", shape=value.shape, type=ir.TensorType(ir.DataType.FLOAT))
        inputs = [made.q, made.scale, made.zero]
        dequantize = ir.Node("", "DequantizeLinear", inputs, outputs=[out], name=f"{value.name}/DequantizeLinear")
        work.graph.insert_after(producer(made.q), dequantize)
        for reader, index in readers:
            reader.replace_input_with(index, out)
        for index, output in enumerate(work.graph.outputs):
            if output is value:
                out.name, value.name = value.name, f"{value.name}_exact"
                work.graph.outputs[index] = out
        work.activations[out] = made


def quantizable(node: ir.Node) -> bool:
    """Whether an operator has a constant weight whose output channels have an axis, and a plain bias if any."""
    if node.op_type not in QUANTIZABLE or len(node.inputs) < 2:
        return False
    first, weight = node.inputs[0], node.inputs[1]
    if first is None or first.const_value is not None or weight is None or not weight.is_initializer():
        return False
    if node.op_type == "MatMul":
        return weight.shape is not None and len(weight.shape) == 2
    bias = bias_of(node)
    if bias is not None and not bias.is_initializer():
        return False
    if node.op_type == "Gemm":
        plain = all(node.attributes.get_float(key, 1.0) == 1.0 for key in ("alpha", "beta"))
        return plain and not _flag(node, "transA") and (bias is None or array_of(bias).ndim == 1)
    return True


def channel_axis(node: ir.Node) -> int:
    """Axis of the output channels in the weight."""
    if node.op_type == "Conv" or (node.op_type == "Gemm" and _flag(node, "transB")):
        return 0
    return 1


def _flag(node: ir.Node, name: str) -> bool:
    return node.attributes.get_int(name, 0) != 0


def bias_of(node: ir.Node) -> ir.Value | None:
    """The bias, if it has one."""
    return node.inputs[2] if len(node.inputs) > 2 else None


def given(node: ir.Node, index: int) -> ir.Value:
    """An input that must be there."""
    value = node.inputs[index]
    assert value is not None
    return value


def array_of(value: ir.Value) -> NDArray[np.float64]:
    """The values of a constant, in float64."""
    assert value.const_value is not None
    return np.asarray(value.const_value.numpy(), np.float64)


def producer(value: ir.Value) -> ir.Node:
    """The node that makes a value."""
    node = value.producer()
    assert node is not None
    return node
