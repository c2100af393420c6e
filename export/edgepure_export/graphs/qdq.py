"""Explicit quantization of a finished ONNX graph: QuantizeLinear and DequantizeLinear around its heavy operators.

The ranges of the activations come from outside (measured on real trajectories); weights are quantized per output
channel and symmetrically. Where the Q/DQ nodes go, and of what type, depends on the engine: see
`edgepure.engines.kinds.Scheme`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgepure.engines.kinds import KINDS, Scheme, kind_of
from edgepure.errors import ConfigError, ExportError

from .precision import drop_unused, new_constant

#: Which tensor of which node: (node name, ``input`` or ``output``).
Tap = tuple[str, Literal["input", "output"]]
#: Lowest and highest value of a tensor.
Range = tuple[float, float]

_QUANTIZABLE = frozenset({"Conv", "Gemm", "MatMul"})
_MAX = {ir.DataType.INT8: 127.0, ir.DataType.UINT8: 255.0, ir.DataType.FLOAT8E4M3FN: 448.0}
#: A scale below this is raised to it. Of fp16 scales: the smallest normal number. Of fp32 scales: small enough for any
#: layer, and large enough that neither 1 / scale nor the product of two scales leaves fp32.
_SMALLEST_FP16, _SMALLEST_FP32 = 2.0**-14, 2.0**-60


def schemes_of(precision: str, provider: str) -> tuple[Scheme, ...]:
    """The schemes of a quantized precision for an engine, by its row; where there are several, the fastest counts.

    Raises:
        ConfigError: the engine has no kernels for it.
    """
    kind = kind_of(provider)
    if precision not in kind.schemes:
        made_for = ", ".join(
            name for name, row in KINDS.items() if precision in row.schemes and row.made_for == row.provider
        )
        raise ConfigError(
            f"there are no {precision} kernels in {provider}; {precision} can be made for {made_for}",
            code="E-variant-kernels",
        )
    return kind.schemes[precision]


def scheme_of(precision: str, provider: str) -> Scheme:
    """The first of `schemes_of`, which is the better one on most machines."""
    return schemes_of(precision, provider)[0]


@dataclass(frozen=True)
class QdqReport:
    """What `insert_qdq` did: operators quantized by type, Q and DQ nodes, and the layers that stay as they were."""

    operators: dict[str, int]
    quantize_nodes: int
    dequantize_nodes: int
    kept: tuple[str, ...]


def quantizable(model: ir.Model) -> list[str]:
    """Names of the operators that can be quantized, in the order of the graph: those with a constant weight."""
    return [str(node.name) for node in model.graph if _quantizable(node)]


def taps(model: ir.Model, scheme: Scheme) -> dict[Tap, ir.Value]:
    """The tensors whose ranges `insert_qdq` needs."""
    found: dict[Tap, ir.Value] = {}
    for node in model.graph:
        if _quantizable(node):
            found[(str(node.name), "input")] = _input(node, 0)
            if node.op_type in scheme.outputs:
                found[(str(node.name), "output")] = node.outputs[0]
    return found


def insert_qdq(
    model: ir.Model, ranges: Mapping[Tap, Range], scheme: Scheme, keep: Collection[str] = (), fp16_scales: bool = False
) -> QdqReport:
    """Quantize a graph in place.

    Args:
        model: an fp32 graph from `edgepure_export.graphs.precision.load_graph`.
        ranges: of every tensor that `taps` names.
        scheme: see `Scheme`.
        keep: names of nodes that stay in fp32.
        fp16_scales: `precision.to_half` makes fp16 of the scales later, with what is not quantized.

    Raises:
        ExportError: a range is missing or not finite.
    """
    work = _Quantizer(model.graph, ranges, scheme, _SMALLEST_FP16 if fp16_scales else _SMALLEST_FP32)
    operators: dict[str, int] = {}
    kept = []
    for node in list(model.graph):
        if not _quantizable(node):
            continue
        if node.name in keep:
            kept.append(str(node.name))
            continue
        work.quantize(node)
        operators[node.op_type] = operators.get(node.op_type, 0) + 1
    drop_unused(model.graph)
    return QdqReport(operators, *count_qdq(model), tuple(kept))


def count_qdq(model: ir.Model) -> tuple[int, int]:
    """Number of QuantizeLinear and of DequantizeLinear nodes."""
    types = [node.op_type for node in model.graph]
    return types.count("QuantizeLinear"), types.count("DequantizeLinear")


class _Quantizer:
    def __init__(self, graph: ir.Graph, ranges: Mapping[Tap, Range], scheme: Scheme, smallest: float) -> None:
        self.graph, self.ranges, self.scheme, self.smallest = graph, ranges, scheme, smallest
        #: Activation -> (its quantized value, scale value, zero point value, scale).
        self.activations: dict[ir.Value, tuple[ir.Value, ir.Value, ir.Value, float]] = {}

    def quantize(self, node: ir.Node) -> None:
        name = str(node.name)
        q, scale, zero, number = self._activation(_input(node, 0), (name, "input"), node)
        node.replace_input_with(0, self._dequantize(q, scale, zero, f"{name}/input", node))
        axis = _channel_axis(node)
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        # ONNX Runtime makes an int32 of a float bias, too, in units of input scale x weight scale
        scales = self._weight(node, axis, number if bias is not None else None)
        if self.scheme.int32_bias and bias is not None:
            self._bias(node, bias, number * scales)
        if node.op_type in self.scheme.outputs:
            self._output(node)

    def _activation(self, value: ir.Value, tap: Tap, before: ir.Node) -> tuple[ir.Value, ir.Value, ir.Value, float]:
        """The quantized form of a value: made before its first reader, shared by all."""
        if value not in self.activations:
            self.activations[value] = self._quantize_node(value, tap, before)
        return self.activations[value]

    def _quantize_node(
        self, value: ir.Value, tap: Tap, before: ir.Node | None
    ) -> tuple[ir.Value, ir.Value, ir.Value, float]:
        kind = ir.DataType[self.scheme.activations]
        number, point = _parameters(self._range(tap), kind, self.smallest)
        scale = new_constant(self.graph, f"{value.name}_scale", np.array(number, np.float32))
        zero = new_constant(self.graph, f"{value.name}_zero", np.array(point).astype(kind.numpy()))
        out = ir.Value(name=f"{value.name}_{kind.name.lower()}", shape=value.shape, type=ir.TensorType(kind))
        node = ir.Node("", "QuantizeLinear", [value, scale, zero], outputs=[out], name=f"{value.name}/QuantizeLinear")
        if before is None:
            producer = value.producer()
            assert producer is not None
            self.graph.insert_after(producer, node)
        else:
            self.graph.insert_before(before, node)
        return out, scale, zero, number

    def _dequantize(
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

    def _weight(self, node: ir.Node, axis: int, bias_unit: float | None) -> NDArray[np.float64]:
        """Quantize the weight of a node per output channel. Returns the scales ``[channels]``."""
        weight, name = _input(node, 1), str(node.name)
        kind, array = ir.DataType[self.scheme.weights], _array(weight)
        other = tuple(i for i in range(array.ndim) if i != axis)
        largest = np.abs(array).max(axis=other)
        largest[largest == 0] = largest.max() or 1.0  # any scale does for zeros; a tiny one overflows in some kernels
        scales = np.maximum(largest / _MAX[kind], self.smallest)
        if bias_unit is not None:  # the bias has to fit into int32 in units of input scale x weight scale
            scales = np.maximum(scales, np.abs(_array(_input(node, 2))) / (bias_unit * 2.0**30))
        scales = scales.astype(np.float32).astype(np.float64)
        shape = [-1 if i == axis else 1 for i in range(array.ndim)]
        rounded = _round(array / scales.reshape(shape), kind)
        point = self.scheme.conv_weight_zero if node.op_type == "Conv" else 0
        if point:  # int8: from -127..127 to -128..126
            rounded = (rounded.astype(np.int16) + point).astype(kind.numpy())
        q = new_constant(self.graph, f"{name}/weight_{kind.name.lower()}", rounded)
        scale = new_constant(self.graph, f"{name}/weight_scale", scales.astype(np.float32))
        zero = new_constant(self.graph, f"{name}/weight_zero", np.full(len(scales), point).astype(kind.numpy()))
        node.replace_input_with(1, self._dequantize(q, scale, zero, f"{name}/weight", node, axis))
        return np.asarray(scales, np.float64)

    def _bias(self, node: ir.Node, bias: ir.Value, unit: NDArray[np.float64]) -> None:
        name = str(node.name)
        scale = unit.astype(np.float32)
        q = new_constant(self.graph, f"{name}/bias_int32", np.rint(_array(bias) / scale).astype(np.int32))
        value = new_constant(self.graph, f"{name}/bias_scale", scale)
        node.replace_input_with(2, self._dequantize(q, value, None, f"{name}/bias", node, axis=0))

    def _output(self, node: ir.Node) -> None:
        """Q and DQ after the node; whoever read its output reads the dequantized one."""
        value, name = node.outputs[0], str(node.name)
        readers = list(value.uses())
        made = self._quantize_node(value, (name, "output"), None)
        q, scale, zero, _ = made
        out = ir.Value(name=f"{value.name}_dequantized", shape=value.shape, type=ir.TensorType(ir.DataType.FLOAT))
        dequantize = ir.Node(
            "", "DequantizeLinear", [q, scale, zero], outputs=[out], name=f"{value.name}/DequantizeLinear"
        )
        producer = q.producer()
        assert producer is not None
        self.graph.insert_after(producer, dequantize)
        for reader, index in readers:
            reader.replace_input_with(index, out)
        for index, output in enumerate(self.graph.outputs):
            if output is value:
                out.name, value.name = value.name, f"{value.name}_exact"
                self.graph.outputs[index] = out
        self.activations[out] = made

    def _range(self, tap: Tap) -> Range:
        if tap not in self.ranges:
            raise ExportError(
                f"no range was measured for the {tap[1]} of {tap[0]}; measure the ranges on this graph",
                code="E-quantize-range",
            )
        low, high = self.ranges[tap]
        if not (np.isfinite(low) and np.isfinite(high) and low <= high):
            raise ExportError(
                f"the {tap[1]} of {tap[0]} ranges from {low} to {high}, which cannot be quantized; "
                "leave its layer unquantized, or give other images",
                code="E-quantize-range",
            )
        return low, high


def _parameters(bounds: Range, kind: ir.DataType, smallest: float = _SMALLEST_FP32) -> tuple[float, float]:
    """Scale and zero point of an activation. Zero is exact in all types: padding adds zeros."""
    low, high = min(bounds[0], 0.0), max(bounds[1], 0.0)
    if kind == ir.DataType.UINT8:
        scale = float(np.float32(max((high - low) / 255.0, smallest)))
        return scale, float(np.clip(np.rint(-low / scale), 0, 255))
    return float(np.float32(max(max(-low, high) / _MAX[kind], smallest))), 0.0


def fake_quantized(values: NDArray[np.float32], bounds: Range, kind: ir.DataType) -> NDArray[np.float32]:
    """``values`` after quantization to ``kind`` with these bounds and back, float32."""
    scale, zero = _parameters(bounds, kind)
    rounded = _round(values / scale + zero, kind).astype(np.float32)
    return np.asarray((rounded - np.float32(zero)) * np.float32(scale), np.float32)


def _round(values: NDArray[np.floating], kind: ir.DataType) -> np.ndarray:
    """To the nearest value of the type, out of range values to its ends."""
    if kind == ir.DataType.FLOAT8E4M3FN:
        return np.asarray(np.clip(values, -448.0, 448.0)).astype(kind.numpy())
    low = 0.0 if kind == ir.DataType.UINT8 else -127.0 if kind == ir.DataType.INT8 else None
    return np.asarray(np.clip(np.rint(values), low, _MAX[kind])).astype(kind.numpy())


def _quantizable(node: ir.Node) -> bool:
    if node.op_type not in _QUANTIZABLE or len(node.inputs) < 2:
        return False
    first, weight = node.inputs[0], node.inputs[1]
    if first is None or first.const_value is not None or weight is None or not weight.is_initializer():
        return False
    if node.op_type == "MatMul":
        return weight.shape is not None and len(weight.shape) == 2
    if len(node.inputs) > 2 and (node.inputs[2] is not None and not _input(node, 2).is_initializer()):
        return False
    if node.op_type == "Gemm":
        plain = all(node.attributes.get_float(key, 1.0) == 1.0 for key in ("alpha", "beta"))
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        return plain and not _flag(node, "transA") and (bias is None or _array(bias).ndim == 1)
    return True


def _channel_axis(node: ir.Node) -> int:
    """Axis of the output channels in the weight."""
    if node.op_type == "Conv" or (node.op_type == "Gemm" and _flag(node, "transB")):
        return 0
    return 1


def _flag(node: ir.Node, name: str) -> bool:
    return node.attributes.get_int(name, 0) != 0


def _input(node: ir.Node, index: int) -> ir.Value:
    value = node.inputs[index]
    assert value is not None
    return value


def _array(value: ir.Value) -> NDArray[np.float64]:
    assert value.const_value is not None
    return np.asarray(value.const_value.numpy(), np.float64)
