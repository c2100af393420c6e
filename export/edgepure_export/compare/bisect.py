"""Find the first layer of a graph that leaves its reference, and the PyTorch module that it came from.

Two kinds of reference: another graph with the same node names (the fp32 graph of a variant, or the same graph on
another provider), compared node by node; or the PyTorch module, whose submodules are watched by hooks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgepure.parity.differences import Difference, difference
from edgepure.parity.findings import LayerError, LayerFinding
from edgepure.parity.tolerances import Tolerance, graph_tolerance

from .causes import usual_causes
from .onnx_probe import NodeInfo, OnnxProbe

if TYPE_CHECKING:
    from torch import nn

#: A layer that uses less than this share of the tolerance computes as it should: rounding of a single layer.
SINGLE_LAYER = 0.05


@dataclass(frozen=True)
class _Layer:
    """One comparison: where, and how far. ``used`` is the share of the graph's tolerance."""

    node: NodeInfo
    module: str
    found: Difference
    used: float


def bisect_graphs(
    graph: str,
    deployed: OnnxProbe,
    reference: OnnxProbe,
    feeds: Mapping[str, NDArray[np.float32]],
    *,
    precision: str,
    against: str,
    provider: str = "cpu",
) -> LayerFinding:
    """Compare two graphs node by node, by the names of the nodes.

    Args:
        graph: its name in the bundle.
        deployed, reference: the two graphs, on their engines.
        feeds: inputs of the graph.
        precision: of the deployed one; its tolerance decides.
        against: what the reference is called.
        provider: of the deployed one.
    """
    theirs = {node.name: node for node in reference.nodes}
    common = [node for node in deployed.nodes if node.name in theirs and theirs[node.name].operator == node.operator]
    tolerance = graph_tolerance(graph, precision)
    layers = []
    for nodes in deployed.batches(common):
        found = deployed.outputs([node.output for node in nodes], feeds)
        expected = reference.outputs([theirs[node.name].output for node in nodes], feeds)
        for node in nodes:
            layer = _compare(node, node.module, found[node.output], expected[theirs[node.name].output], tolerance)
            layers += [] if layer is None else [layer]
    return _finding(graph, layers, tolerance, precision, against, provider)


def bisect_module(
    graph: str,
    deployed: OnnxProbe,
    module: nn.Module,
    feeds: Mapping[str, NDArray[np.float32]],
    order: Sequence[str],
    *,
    precision: str,
    provider: str = "cpu",
) -> LayerFinding:
    """Compare a graph with the PyTorch module that it was exported from, layer by layer.

    Of every submodule without children the input and the output are compared, so that what happens between two layers
    (a resize, an addition) is seen too. A batch norm that was folded into the convolution before it counts as one
    layer with it. Submodules that are called more than once are left out.

    Args:
        order: names of the inputs in the order of the module's arguments.
        graph, deployed, feeds, precision, provider: as `bisect_graphs`.
    """
    from .module_watch import watch_module

    tolerance = graph_tolerance(graph, precision)
    expected = watch_module(module, [feeds[name] for name in order], {node.module for node in deployed.nodes})
    producers = {node.output: node for node in deployed.nodes}
    first: dict[str, NodeInfo] = {}
    last: dict[str, NodeInfo] = {}
    for node in deployed.nodes:
        first.setdefault(node.module, node)
        last[node.module] = node
    pairs: dict[str, tuple[NodeInfo, NDArray[np.float32]]] = {}  # by the name of the tensor, in the order of execution
    for name, call in expected.items():
        if name not in last:
            continue
        before = producers.get(first[name].inputs[0])
        if call.input is not None and before is not None:
            pairs.setdefault(before.output, (before, call.input))
        pairs.setdefault(last[name].output, (last[name], call.output))
    layers = []
    for nodes in deployed.batches([node for node, _ in pairs.values()]):
        found = deployed.outputs([node.output for node in nodes], feeds)
        for node in nodes:
            layer = _compare(node, node.module, found[node.output], pairs[node.output][1], tolerance)
            layers += [] if layer is None else [layer]
    return _finding(graph, layers, tolerance, precision, "PyTorch", provider)


def first_divergence(used: Sequence[float]) -> int | None:
    """Which layer diverges first, from the share of its tolerance that each layer uses, in the order of execution.

    A small error may grow until it crosses the tolerance far behind its cause. So of all layers up to the first one
    that uses more than 1, the one is taken whose error jumps most over the largest before it; errors below
    `SINGLE_LAYER` count as that.
    """
    crossing = next((i for i, share in enumerate(used) if not share <= 1.0), None)
    if crossing is None:
        return None
    largest, best, jump = SINGLE_LAYER, crossing, 0.0
    for i, share in enumerate(used[: crossing + 1]):
        if not np.isfinite(share):
            return i
        if share / largest > jump:
            best, jump = i, share / largest
        largest = max(largest, share)
    return best


def _compare(
    node: NodeInfo, module: str, found: NDArray[np.generic], expected: NDArray[np.generic], tolerance: Tolerance
) -> _Layer | None:
    """None if the two cannot be the same tensor."""
    if found.shape != expected.shape:
        return None
    apart = difference(found, expected)
    share = max(apart.relative_l2 / tolerance.relative_l2, apart.max_abs / (tolerance.max_abs * max(1.0, apart.scale)))
    return _Layer(node, module, apart, share if apart.max_abs == apart.max_abs else float("nan"))


def _finding(
    graph: str, layers: Sequence[_Layer], tolerance: Tolerance, precision: str, against: str, provider: str
) -> LayerFinding:
    first = first_divergence([layer.used for layer in layers])
    culprit = None if first is None else layers[first]
    weighted = any(layer.node.operator in ("Conv", "Gemm", "MatMul") for layer in layers[: first or 0])
    return LayerFinding(
        graph=graph,
        reference=against,
        layers=tuple(
            LayerError(layer.node.name, layer.node.operator, layer.module, layer.found.relative_l2, layer.found.max_abs)
            for layer in layers
        ),
        first=first,
        tolerance=tolerance.relative_l2,
        causes=usual_causes(
            None if culprit is None else culprit.node.operator,
            "" if culprit is None else culprit.module,
            precision,
            provider,
            against_torch=against == "PyTorch",
            before_weights=not weighted,
        ),
    )


def probe(path: Path, provider: str = "cpu", precision: str = "fp32", threads: int | None = None) -> OnnxProbe:
    """Open a graph to look inside."""
    return OnnxProbe(path, provider, threads, precision)
