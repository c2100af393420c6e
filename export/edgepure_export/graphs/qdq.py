"""Explicit quantization of a finished ONNX graph: QuantizeLinear and DequantizeLinear around its heavy operators.

The ranges of the activations come from outside (measured on real trajectories); weights are quantized per output
channel and symmetrically (`qdq_rules`). Where the Q/DQ nodes go, and of what type, depends on the engine: see
`edgepure.engines.kind.Scheme`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from edgepure.engines.kind import Scheme
from edgepure.engines.kinds import KINDS, kind_of
from edgepure.errors import ConfigError

from . import qdq_rules
from .qdq_rules import IntegerBias, Quantization, QuantizedInput, QuantizedOutput, QuantizedWeight, Tap, given
from .quantized_numbers import SMALLEST_FP16, SMALLEST_FP32, Range
from .rules import drop_unused, rewrite


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
    return [str(node.name) for node in model.graph if qdq_rules.quantizable(node)]


def taps(model: ir.Model, scheme: Scheme) -> dict[Tap, ir.Value]:
    """The tensors whose ranges `insert_qdq` needs."""
    found: dict[Tap, ir.Value] = {}
    for node in model.graph:
        if qdq_rules.quantizable(node):
            found[(str(node.name), "input")] = given(node, 0)
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
    graph = model.graph
    kept = tuple(name for name in quantizable(model) if name in keep)
    work = Quantization(graph, ranges, scheme, SMALLEST_FP16 if fp16_scales else SMALLEST_FP32, keep)
    rewrite(graph, [rule(work) for rule in (QuantizedInput, QuantizedWeight, IntegerBias, QuantizedOutput)])
    drop_unused(graph)
    return QdqReport(dict(Counter(node.op_type for node in work.done)), *count_qdq(model), kept)


def count_qdq(model: ir.Model) -> tuple[int, int]:
    """Number of QuantizeLinear and of DequantizeLinear nodes."""
    types = [node.op_type for node in model.graph]
    return types.count("QuantizeLinear"), types.count("DequantizeLinear")
