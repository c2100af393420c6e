"""What the rewrites share: sizes of an input, a node whose value takes the place of another's, a node that is added."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from edgepure.errors import ExportError


def added(
    before: ir.Node, operator: str, inputs: Sequence[ir.Value], name: str, shape: ir.Shape | None, **attributes: object
) -> ir.Value:
    """What a new node of ``before``'s graph gives; it stands before it and has the type of its first input."""
    made = ir.node(operator, list(inputs), dict(attributes), name=name)  # type: ignore[arg-type]
    out = made.outputs[0]
    out.name, out.shape, out.type = name, shape, inputs[0].type
    made.metadata_props.update(before.metadata_props)
    assert isinstance(before.graph, ir.Graph)
    before.graph.insert_before(before, made)
    return out


def grown(value: ir.Value, more: Mapping[int, int]) -> ir.Shape | None:
    """The shape of a value with ``more`` elements along some of its axes; None where they are not fixed."""
    dims = list(value.shape) if value.shape is not None else []
    for axis, extra in more.items():
        size = dims[axis] if axis < len(dims) else None
        if not isinstance(size, int):
            return None
        dims[axis] = size + extra
    return ir.Shape(dims)


def take_over(graph: ir.Graph, after: ir.Node, old: ir.Value, made: ir.Node) -> None:
    """Let the readers of ``old`` read what ``made`` gives, which stands behind ``after`` and has its name."""
    new = made.outputs[0]
    new.shape, new.type = old.shape, old.type
    made.metadata_props.update(after.metadata_props)
    readers = [(reader, index) for reader, index in old.uses() if reader is not made]
    graph.insert_after(after, made)
    for reader, index in readers:
        reader.replace_input_with(index, new)
    name = old.name
    new.name, old.name = f"{name}/scaled", name
    for index, output in enumerate(graph.outputs):
        if output is old:
            new.name, old.name = name, f"{name}/before"
            graph.outputs[index] = new


def spatial(node: ir.Node) -> list[int]:
    """Sizes of the axes behind batch and channels."""
    value = node.inputs[0]
    sizes = list(value.shape)[2:] if value is not None and value.shape is not None else []
    if not sizes or not all(isinstance(size, int) for size in sizes):
        raise ExportError(
            f"{node.op_type} {node.name!r} is computed differently by engines, and the size of its input is not fixed, "
            "so it cannot be rewritten; choose ceil_mode=False or antialias=False in the network",
            code="E-export-portable",
        )
    return [size for size in sizes if isinstance(size, int)]
