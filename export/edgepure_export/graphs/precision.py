"""Heavy operators of a finished ONNX graph in 16 bits: the graph in, the graph out, no PyTorch model needed.

Convolutions and matrix products run in fp16 or bf16. A light operator between two of them (an addition, a reshaping)
follows when all of its inputs are in 16 bits anyway. Everything else stays in fp32: inputs and outputs of the graph,
the row arithmetic and its coefficients, the time embedding's sines, normalisations, softmax and reductions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from edgepure.errors import ConfigError, ExportError

from .linked import unlink_weights

#: The names of the manifest.
HALF_TYPES = {"fp16": ir.DataType.FLOAT16, "bf16": ir.DataType.BFLOAT16}
#: What the time of a network is spent in.
HEAVY = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
#: bf16 has no transposed convolution in TensorRT's builder (TensorRT for RTX 1.7): those stay in fp32.
NOT_IN_BF16 = frozenset({"ConvTranspose"})
#: What follows its inputs: elementwise operators that keep the size of numbers in bounds, and moves of data.
LIGHT = frozenset(
    {
        "Add",
        "Sub",
        "Mul",
        "Sigmoid",
        "Tanh",
        "Relu",
        "LeakyRelu",
        "Concat",
        "Split",
        "Slice",
        "Reshape",
        "Transpose",
        "Unsqueeze",
        "Squeeze",
        "Flatten",
        "Identity",
        "Pad",
        "Resize",
        "Expand",
        "Gather",
        "MaxPool",
    }
)
_FLOAT = ir.DataType.FLOAT


@dataclass(frozen=True)
class HalfReport:
    """What `to_half` did: number of operators of each type in 16 bits, Casts that it took, layers kept in fp32."""

    operators: dict[str, int]
    casts: int
    kept: tuple[str, ...]


def load_graph(path: Path) -> ir.Model:
    """A graph of a bundle, with the type of every value known. Its weights stay in their file until they are read.

    Raises:
        ExportError: not an ONNX graph, or the type of a value cannot be inferred.
    """
    try:
        model = ir.load(path)
        unlink_weights(model)
    except Exception as error:  # protobuf raises classes of its own
        raise ExportError(f"{path} is not a readable ONNX graph: {error}", code="E-graph-file") from error
    if any(value.dtype is None for node in model.graph for value in node.outputs):
        model = ShapeInferencePass()(model).model
    for node in model.graph:
        for value in node.outputs:
            if value.name and value.dtype is None:
                raise ExportError(
                    f"{path.name}: the type of {value.name!r} is unknown; export the graph again", code="E-graph-file"
                )
    return model


def matching(names: Iterable[str], keep: Collection[str]) -> set[str]:
    """The node names that ``keep`` means: a node's own name, or a module that it belongs to.

    Raises:
        ConfigError: a name of ``keep`` means no node.
    """
    every = list(names)
    found: set[str] = set()
    for wanted in keep:
        mine = {n for n in every if n == wanted or n.startswith((f"{wanted}/", f"{wanted}."))}
        if not mine:
            import difflib

            layers = sorted({n.rpartition("/")[0] or n for n in every})
            close = difflib.get_close_matches(wanted, layers, 3) or layers[:3]
            raise ConfigError(
                f"no layer {wanted!r} in this network; there are {len(layers)}, for example {', '.join(close)}",
                code="E-layer-name",
            )
        found |= mine
    return found


def heavy_nodes(model: ir.Model, precision: str) -> list[str]:
    """Names of the operators that `to_half` converts, in the order of the graph."""
    return [str(node.name) for node in model.graph if node.op_type in _heavy_types(HALF_TYPES[precision])]


def to_half(model: ir.Model, precision: str, keep: Collection[str] = ()) -> HalfReport:
    """Convert a graph in place.

    Args:
        model: from `load_graph`; it may have Q/DQ nodes, whose scales then follow.
        precision: ``fp16`` or ``bf16``.
        keep: names of nodes that stay in fp32 (see `matching`).

    Raises:
        ExportError: a weight is too large for fp16, or the graph has subgraphs.
    """
    if any(True for _ in model.graph.subgraphs()):
        raise ExportError(
            f"graph {model.graph.name!r} has control flow (If, Loop), which cannot be converted",
            code="E-graph-operator",
        )
    return _Conversion(model, HALF_TYPES[precision], frozenset(keep)).run()


class _Conversion:
    def __init__(self, model: ir.Model, dtype: ir.DataType, keep: frozenset[str]) -> None:
        self.graph, self.dtype, self.keep = model.graph, dtype, keep
        self.heavy = _heavy_types(dtype)
        self.low: set[ir.Value] = set()
        self.casts: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}
        self.constants: dict[ir.Value, ir.Value] = {}
        self.done: Counter[str] = Counter()

    def run(self) -> HalfReport:
        before_heavy = self._before_heavy()
        for node in list(self.graph):
            if self._is_low(node, node in before_heavy):
                self._lower(node)
            else:
                self._leave(node)
        for index, value in enumerate(self.graph.outputs):
            if value in self.low:
                self._raise_output(index, value)
        drop_unused(self.graph)
        kept = tuple(str(n.name) for n in self.graph if n.op_type in HEAVY and not self._heavy(n))
        return HalfReport(dict(sorted(self.done.items())), sum(n.op_type == "Cast" for n in self.graph), kept)

    def _before_heavy(self) -> set[ir.Node]:
        """Nodes whose result reaches a heavy one: what comes after the last one is row arithmetic."""
        found: set[ir.Node] = set()
        for node in reversed(list(self.graph)):
            for value in node.outputs:
                if any(user in found or self._heavy(user) for user, _ in value.uses()):
                    found.add(node)
        return found

    def _heavy(self, node: ir.Node) -> bool:
        return node.op_type in self.heavy and node.name not in self.keep

    def _is_low(self, node: ir.Node, before_heavy: bool) -> bool:
        if node.op_type in HEAVY:
            return self._heavy(node)
        if node.op_type == "DequantizeLinear":
            return any(self._heavy(user) for user, _ in node.outputs[0].uses())
        values = [node.inputs[i] for i in _data_inputs(node)]
        active = [v for v in values if v is not None and not _is_constant(v)]
        if node.op_type == "QuantizeLinear":
            return all(v in self.low for v in active)
        return node.op_type in LIGHT and before_heavy and bool(active) and all(v in self.low for v in active)

    def _lower(self, node: ir.Node) -> None:
        for index in _data_inputs(node):
            value = node.inputs[index]
            assert value is not None
            if value in self.low:
                continue
            new = self._constant(value) if value.is_initializer() else self._cast(value, self.dtype, node)
            node.replace_input_with(index, new)
        for value in node.outputs:
            if value.dtype == _FLOAT:
                value.dtype = self.dtype
                self.low.add(value)
        if node.op_type in HEAVY or node.op_type in LIGHT:
            self.done[node.op_type] += 1

    def _leave(self, node: ir.Node) -> None:
        for index, value in enumerate(node.inputs):
            if value is not None and value in self.low:
                node.replace_input_with(index, self._cast(value, _FLOAT, node))

    def _constant(self, value: ir.Value) -> ir.Value:
        if value not in self.constants:
            assert value.const_value is not None
            array = value.const_value.numpy().astype(np.float32)
            if self.dtype == ir.DataType.FLOAT16 and array.size and np.abs(array).max() > np.finfo(np.float16).max:
                raise ExportError(
                    f"the weight {value.name!r} has values up to {np.abs(array).max():.3g}, beyond fp16's 65504; "
                    "choose bf16, or keep its layer in fp32",
                    code="E-precision-range",
                )
            name = f"{value.name}_{self.dtype.name.lower()}"
            self.constants[value] = new_constant(self.graph, name, array.astype(self.dtype.numpy()))
        return self.constants[value]

    def _cast(self, value: ir.Value, dtype: ir.DataType, before: ir.Node) -> ir.Value:
        key = (value, dtype)
        if key not in self.casts:
            self.casts[key] = insert_cast(self.graph, value, dtype, before)
        return self.casts[key]

    def _raise_output(self, index: int, value: ir.Value) -> None:
        """The graph's output is fp32 and has its name; what makes it gets another one."""
        producer = value.producer()
        assert producer is not None and value.name is not None
        name = value.name
        value.name = f"{name}_{self.dtype.name.lower()}"
        cast = cast_node(value, _FLOAT, name, f"{name}/Cast")
        self.graph.append(cast)
        self.graph.outputs[index] = cast.outputs[0]


def emulated(model: ir.Model) -> None:
    """Make a 16-bit graph computable without 16-bit kernels, in place: every operator computes in fp32 on values that
    were rounded to 16 bits, and its results are rounded again. For measuring decisions where the device is elsewhere.
    """
    graph = model.graph
    halves = set(HALF_TYPES.values())
    for node in list(graph):
        if node.op_type == "Cast":
            continue
        for index, value in enumerate(node.inputs):
            if value is not None and _dtype(value) in halves:
                node.replace_input_with(index, insert_cast(graph, value, _FLOAT, node))
        for value in node.outputs:
            if value.dtype in halves:
                assert value.dtype is not None
                half, name = value.dtype, str(value.name)
                value.name, value.dtype = f"{name}_exact", _FLOAT
                cast = cast_node(value, half, name, f"{name}/round")
                value.replace_all_uses_with(cast.outputs[0])
                cast.replace_input_with(0, value)
                graph.insert_after(node, cast)


# ---- parts that other passes use too ---------------------------------------------------------------------------------


def insert_cast(graph: ir.Graph, value: ir.Value, dtype: ir.DataType, before: ir.Node) -> ir.Value:
    """``value`` as ``dtype``, by a Cast that stands before ``before``."""
    taken = sum(user.op_type == "Cast" for user, _ in value.uses())
    suffix = dtype.name.lower() + (f"_{taken}" if taken else "")
    cast = cast_node(value, dtype, f"{value.name}_{suffix}", f"{value.name}/Cast_{suffix}")
    graph.insert_before(before, cast)
    return cast.outputs[0]


def cast_node(value: ir.Value, dtype: ir.DataType, name: str, node_name: str) -> ir.Node:
    """A Cast whose output is called ``name``; it belongs to no graph yet."""
    out = ir.Value(name=name, shape=value.shape, type=ir.TensorType(dtype))
    return ir.Node("", "Cast", [value], [ir.AttrInt64("to", int(dtype))], outputs=[out], name=node_name)


def new_constant(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    """Register an initializer."""
    tensor = ir.tensor(array, name=name)
    value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value


def drop_unused(graph: ir.Graph) -> None:
    """Remove initializers that nothing reads any more."""
    outputs = set(graph.outputs)
    for name, value in list(graph.initializers.items()):
        if not value.uses() and value not in outputs:
            del graph.initializers[name]


def _heavy_types(dtype: ir.DataType) -> frozenset[str]:
    return HEAVY - NOT_IN_BF16 if dtype == ir.DataType.BFLOAT16 else HEAVY


def _data_inputs(node: ir.Node) -> list[int]:
    """Inputs that are float data, in contrast to sizes and to the float scales of Resize."""
    indices = range(1) if node.op_type == "Resize" else range(len(node.inputs))
    return [i for i in indices if (value := node.inputs[i]) is not None and _is_float(value)]


def _is_float(value: ir.Value) -> bool:
    return _dtype(value) in (_FLOAT, *HALF_TYPES.values())


def _dtype(value: ir.Value) -> ir.DataType | None:
    return value.const_value.dtype if value.const_value is not None else value.dtype


def _is_constant(value: ir.Value) -> bool:
    producer = value.producer()
    return value.is_initializer() or (producer is not None and producer.op_type == "Constant")
