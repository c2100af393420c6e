"""Heavy operators of a finished ONNX graph in 16 bits: the graph in, the graph out, no PyTorch model needed.

`half_rules` says which operators those are.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from edgepure.errors import ConfigError, ExportError, words_of

from .half_rules import (
    FLOAT,
    HALF_TYPES,
    HEAVY,
    LIGHT,
    Dequantized,
    Halves,
    Heavy,
    InFloat,
    Light,
    Quantized,
    Rounded,
    heavy_types,
)
from .linked import unlink_weights
from .rules import cast_node, drop_unused, rewrite


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
        raise ExportError(
            f"{path} is not a readable ONNX graph: {words_of(error)}; export the bundle again", code="E-graph-invalid"
        ) from error
    if any(value.dtype is None for node in model.graph for value in node.outputs):
        model = ShapeInferencePass()(model).model
    for node in model.graph:
        for value in node.outputs:
            if value.name and value.dtype is None:
                raise ExportError(
                    f"{path.name}: the type of {value.name!r} is unknown; export the graph again", code="E-graph-type"
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
    return [str(node.name) for node in model.graph if node.op_type in heavy_types(HALF_TYPES[precision])]


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
            code="E-graph-control-flow",
        )
    graph = model.graph
    halves = Halves(graph, HALF_TYPES[precision], frozenset(keep))
    rewrite(graph, [rule(halves) for rule in (Heavy, Dequantized, Quantized, Light, InFloat)])
    for index, value in enumerate(graph.outputs):
        if value in halves.low:
            _raise_output(graph, index, value, halves.dtype)
    drop_unused(graph)
    done = Counter(node.op_type for node in graph if node in halves.lowered and node.op_type in HEAVY | LIGHT)
    kept = tuple(str(node.name) for node in graph if node.op_type in HEAVY and node not in halves.lowered)
    return HalfReport(dict(sorted(done.items())), sum(node.op_type == "Cast" for node in graph), kept)


def _raise_output(graph: ir.Graph, index: int, value: ir.Value, dtype: ir.DataType) -> None:
    """The graph's output is fp32 and has its name; what makes it gets another one."""
    assert value.name is not None
    name = value.name
    value.name = f"{name}_{dtype.name.lower()}"
    cast = cast_node(value, FLOAT, name, f"{name}/Cast")
    graph.append(cast)
    graph.outputs[index] = cast.outputs[0]


def emulated(model: ir.Model) -> None:
    """Make a 16-bit graph computable without 16-bit kernels, in place: every operator computes in fp32 on values that
    were rounded to 16 bits, and its results are rounded again. For measuring decisions where the device is elsewhere.
    """
    rewrite(model.graph, [Rounded(model.graph)])
