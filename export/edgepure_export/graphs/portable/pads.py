"""A Pad that continues an image with its other side."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ..rules import new_constant
from .parts import added, grown, take_over

_END = int(np.iinfo(np.int64).max)


def round_pad(graph: ir.Graph, node: ir.Node) -> None:
    """Slices and one Concat for each axis; one that also takes something away is left as it is."""
    value, widths = node.inputs[0], node.inputs[1]
    assert value is not None and widths is not None
    if widths.const_value is None or (len(node.inputs) > 3 and node.inputs[3] is not None):
        return
    pads = widths.const_value.numpy().tolist()
    rank = len(pads) // 2
    axes = [(axis, pads[axis], pads[rank + axis]) for axis in range(rank) if pads[axis] or pads[rank + axis]]
    if not axes or min(pads) < 0:
        return
    last = None
    for axis, before, after in axes:
        parts = [
            _slice(graph, node, value, axis, *place) for place in ((-before, _END), (0, after)) if place not in _EMPTY
        ]
        whole = [*parts[: before > 0], value, *parts[len(parts) - (after > 0) :]]
        shape = grown(value, {axis: before + after})
        value = added(node, "Concat", whole, f"{node.name}/round_{axis}", shape, axis=axis)
        last = value.producer()
    assert last is not None
    take_over(graph, node, node.outputs[0], last)
    graph.remove(node, safe=True)


#: What a slice of nothing would be.
_EMPTY = ((0, _END), (0, 0))


def _slice(graph: ir.Graph, node: ir.Node, value: ir.Value, axis: int, start: int, end: int) -> ir.Value:
    name = f"{node.name}/{'last' if start else 'first'}_{axis}"
    numbers = {"start": start, "end": end, "axis": axis}
    inputs = [new_constant(graph, f"{name}/{key}", np.array([number], np.int64)) for key, number in numbers.items()]
    return added(node, "Slice", [value, *inputs], name, None)
