"""Operators of single numbers and sums that one engine computes wrongly, by others."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ..rules import new_constant
from .parts import added, take_over

_LARGEST = float(np.finfo(np.float32).max)


def equal_infinity(graph: ir.Graph, node: ir.Node) -> None:
    """``IsInf(x)`` as a comparison with infinity: of the absolute value, where both signs are looked for."""
    value, name = node.inputs[0], str(node.name)
    assert value is not None
    positive, negative = (node.attributes.get_int(f"detect_{sign}", 1) for sign in ("positive", "negative"))
    if positive and negative:
        value = added(node, "Abs", [value], f"{name}/Abs", value.shape)
    infinity = np.array(np.inf if positive else -np.inf, np.float32)
    equal = ir.node("Equal", [value, new_constant(graph, f"{name}/infinity", infinity)], name=f"{name}/Equal")
    _instead(graph, node, equal)


def stable_log_sum_exp(graph: ir.Graph, node: ir.Node) -> None:
    """``m + log(sum(exp(x - m)))``, where m is the largest number, kept finite."""
    value, name = node.inputs[0], str(node.name)
    assert value is not None
    axes = [axis for axis in node.inputs[1:] if axis is not None]
    keep = node.attributes.get_int("keepdims", 1)
    noop = node.attributes.get_int("noop_with_empty_axes", 0)

    def reduced(operator: str, of: ir.Value, key: str, keepdims: int) -> ir.Value:
        words = f"{name}/{key}"
        return added(node, operator, [of, *axes], words, None, keepdims=keepdims, noop_with_empty_axes=noop)

    def finite(of: ir.Value, key: str) -> ir.Value:
        bounds = [
            new_constant(graph, f"{name}/{key}_{n}", np.array(x, np.float32))
            for n, x in enumerate((-_LARGEST, _LARGEST))
        ]
        return added(node, "Clip", [of, *bounds], f"{name}/{key}", None)

    largest = finite(reduced("ReduceMax", value, "ReduceMax", 1), "Clip")
    shifted = added(node, "Sub", [value, largest], f"{name}/Sub", value.shape)
    powers = added(node, "Exp", [shifted], f"{name}/Exp", value.shape)
    log = added(node, "Log", [reduced("ReduceSum", powers, "ReduceSum", keep)], f"{name}/Log", None)
    if not keep:
        largest = finite(reduced("ReduceMax", value, "ReduceMax_flat", 0), "Clip_flat")
    _instead(graph, node, ir.node("Add", [log, largest], name=f"{name}/Add"))


def _instead(graph: ir.Graph, node: ir.Node, made: ir.Node) -> None:
    take_over(graph, node, node.outputs[0], made)
    graph.remove(node, safe=True)
