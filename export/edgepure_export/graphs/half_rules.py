"""The rules of 16 bits: which operators of a graph compute in fp16 or bf16, and where Casts and smaller weights go.

Convolutions and matrix products run in 16 bits. A light operator between two of them (an addition, a reshaping)
follows when all of its inputs are in 16 bits anyway. Everything else stays in fp32: inputs and outputs of the graph,
the row arithmetic and its coefficients, the time embedding's sines, normalisations, softmax and reductions.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgepure.errors import ExportError

from .rules import Rule, cast_node, insert_cast, new_constant

#: The names of the manifest.
HALF_TYPES = {"fp16": ir.DataType.FLOAT16, "bf16": ir.DataType.BFLOAT16}
#: What the time of a network is spent in.
HEAVY = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
#: bf16 has no transposed convolution in TensorRT's builder (TensorRT for RTX 1.7): those stay in fp32.
NOT_IN_BF16 = frozenset({"ConvTranspose"})
#: What follows its inputs: elementwise operators that keep the size of numbers in bounds, and moves of data.
LIGHT = frozenset(
    {"Add", "Sub", "Mul", "Sigmoid", "Tanh", "Relu", "LeakyRelu"}
    | {"Concat", "Split", "Slice", "Reshape", "Transpose", "Unsqueeze", "Squeeze", "Flatten", "Identity", "Expand"}
    | {"Pad", "Resize", "Gather", "MaxPool"}
)
FLOAT = ir.DataType.FLOAT


def heavy_types(dtype: ir.DataType) -> frozenset[str]:
    """What computes in this type."""
    return HEAVY - NOT_IN_BF16 if dtype == ir.DataType.BFLOAT16 else HEAVY


class Halves:
    """What the rules know of one conversion, and share.

    Attributes:
        low: the values that are in 16 bits.
        lowered: the nodes that read 16 bits.
        before_heavy: nodes whose result reaches a heavy one: what comes after the last one is row arithmetic.
    """

    def __init__(self, graph: ir.Graph, dtype: ir.DataType, keep: frozenset[str]) -> None:
        self.graph, self.dtype, self.keep = graph, dtype, keep
        self.types = heavy_types(dtype)
        self.low: set[ir.Value] = set()
        self.lowered: set[ir.Node] = set()
        self._casts: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}
        self._constants: dict[ir.Value, ir.Value] = {}
        self.before_heavy: set[ir.Node] = set()
        for node in reversed(list(graph)):
            for value in node.outputs:
                if any(user in self.before_heavy or self.heavy(user) for user, _ in value.uses()):
                    self.before_heavy.add(node)

    def heavy(self, node: ir.Node) -> bool:
        """Whether a node computes in 16 bits whatever its inputs are in."""
        return node.op_type in self.types and node.name not in self.keep

    def lower(self, node: ir.Node) -> None:
        """Let a node read 16 bits; its results are in 16 bits then."""
        for index in _data_inputs(node):
            value = node.inputs[index]
            assert value is not None
            if value not in self.low:
                new = self._constant(value) if value.is_initializer() else self.cast(value, self.dtype, node)
                node.replace_input_with(index, new)
        for value in node.outputs:
            if value.dtype == FLOAT:
                value.dtype = self.dtype
                self.low.add(value)
        self.lowered.add(node)

    def cast(self, value: ir.Value, dtype: ir.DataType, before: ir.Node) -> ir.Value:
        """The value in another type: one Cast for all of its readers."""
        key = (value, dtype)
        if key not in self._casts:
            self._casts[key] = insert_cast(self.graph, value, dtype, before)
        return self._casts[key]

    def _constant(self, value: ir.Value) -> ir.Value:
        if value not in self._constants:
            assert value.const_value is not None
            array = value.const_value.numpy().astype(np.float32)
            if self.dtype == ir.DataType.FLOAT16 and array.size and np.abs(array).max() > np.finfo(np.float16).max:
                raise ExportError(
                    f"the weight {value.name!r} has values up to {np.abs(array).max():.3g}, beyond fp16's 65504; "
                    "choose bf16, or keep its layer in fp32",
                    code="E-precision-range",
                )
            name = f"{value.name}_{self.dtype.name.lower()}"
            self._constants[value] = new_constant(self.graph, name, array.astype(self.dtype.numpy()))
        return self._constants[value]


class _InHalf(Rule):
    def __init__(self, halves: Halves) -> None:
        self.halves = halves

    def rewrite(self, node: ir.Node) -> None:
        self.halves.lower(node)


class Heavy(_InHalf):
    """Convolutions and matrix products compute in 16 bits, unless they are to be kept."""

    pattern = HEAVY

    def check(self, node: ir.Node) -> bool:
        return self.halves.heavy(node)


class Dequantized(_InHalf):
    """What dequantizes for a node in 16 bits gives 16 bits: its scale follows."""

    pattern = frozenset({"DequantizeLinear"})

    def check(self, node: ir.Node) -> bool:
        return any(self.halves.heavy(user) for user, _ in node.outputs[0].uses())


class Quantized(_InHalf):
    """What quantizes 16 bits has its scale in 16 bits, too."""

    pattern = frozenset({"QuantizeLinear"})

    def check(self, node: ir.Node) -> bool:
        return all(value in self.halves.low for value in _active_inputs(node))


class Light(_InHalf):
    """A light operator follows its inputs, if what it makes reaches a heavy one."""

    pattern = LIGHT

    def check(self, node: ir.Node) -> bool:
        active = _active_inputs(node)
        return node in self.halves.before_heavy and bool(active) and all(value in self.halves.low for value in active)


class InFloat(Rule):
    """Everything else reads fp32."""

    def __init__(self, halves: Halves) -> None:
        self.halves = halves

    def check(self, node: ir.Node) -> bool:
        return node not in self.halves.lowered

    def rewrite(self, node: ir.Node) -> None:
        for index, value in enumerate(node.inputs):
            if value is not None and value in self.halves.low:
                node.replace_input_with(index, self.halves.cast(value, FLOAT, node))


class Rounded(Rule):
    """What computes in 16 bits computes in fp32 instead, and its results are rounded to 16 bits."""

    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph

    def check(self, node: ir.Node) -> bool:
        return node.op_type != "Cast"

    def rewrite(self, node: ir.Node) -> None:
        halves = set(HALF_TYPES.values())
        for index, value in enumerate(node.inputs):
            if value is not None and _dtype(value) in halves:
                node.replace_input_with(index, insert_cast(self.graph, value, FLOAT, node))
        for value in node.outputs:
            if value.dtype in halves:
                assert value.dtype is not None
                half, name = value.dtype, str(value.name)
                value.name, value.dtype = f"{name}_exact", FLOAT
                cast = cast_node(value, half, name, f"{name}/round")
                value.replace_all_uses_with(cast.outputs[0])
                cast.replace_input_with(0, value)
                self.graph.insert_after(node, cast)


def _data_inputs(node: ir.Node) -> list[int]:
    """Inputs that are float data, in contrast to sizes and to the float scales of Resize."""
    indices = range(1) if node.op_type == "Resize" else range(len(node.inputs))
    floats = (FLOAT, *HALF_TYPES.values())
    return [i for i in indices if (value := node.inputs[i]) is not None and _dtype(value) in floats]


def _active_inputs(node: ir.Node) -> list[ir.Value]:
    """The data that it reads, without constants."""
    values = (node.inputs[index] for index in _data_inputs(node))
    return [value for value in values if value is not None and not _is_constant(value)]


def _dtype(value: ir.Value) -> ir.DataType | None:
    return value.const_value.dtype if value.const_value is not None else value.dtype


def _is_constant(value: ir.Value) -> bool:
    producer = value.producer()
    return value.is_initializer() or (producer is not None and producer.op_type == "Constant")
