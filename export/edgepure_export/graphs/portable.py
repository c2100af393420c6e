"""Operators that engines compute differently, written in others on which all agree.

Found by a sweep of every operator that exported graphs contain, on ONNX Runtime 1.19 to 1.31 and OpenVINO 2025.4 to
2026.4, against PyTorch (`tests/export/graphs/test_engines_agree.py`). No engine says a word about these:

- a pool with ``ceil_mode``: another divisor at the border, or one row too many;
- a ``Resize`` with ``antialias`` or ``exclude_outside``: left out by OpenVINO, other weights in ONNX Runtime 1.19.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, prod

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from edgepure.errors import ExportError

from .rules import new_constant

#: Padding of a maximum: below every value, and finite, so that it survives arithmetic.
_LOWEST = float(np.finfo(np.float32).min)


def make_portable(model: ir.Model) -> None:
    """Rewrite a graph in place.

    Raises:
        ExportError: an operator would have to be rewritten, and the size of its input is not fixed.
    """
    for node in list(model.graph):
        if node.op_type in ("AveragePool", "MaxPool") and node.attributes.get_int("ceil_mode", 0) != 0:
            _explicit_pool(model.graph, node)
        elif node.op_type == "Resize" and any(
            node.attributes.get_int(flag, 0) != 0 for flag in ("antialias", "exclude_outside")
        ):
            _matrix_resize(model.graph, node)


@dataclass(frozen=True)
class _Axis:
    """A pool along one axis of its input."""

    size: int
    before: int
    after: int
    kernel: int
    stride: int
    dilation: int

    @property
    def reach(self) -> int:
        """Pixels from the first to the last of a window."""
        return self.dilation * (self.kernel - 1) + 1

    @property
    def rounded_down(self) -> int:
        """Windows without ``ceil_mode``."""
        return (self.size + self.before + self.after - self.reach) // self.stride + 1

    @property
    def windows(self) -> int:
        """Their number, rounded up; a last one that would begin behind image and padding is left out."""
        count = ceil((self.size + self.before + self.after - self.reach) / self.stride) + 1
        return count - 1 if (count - 1) * self.stride >= self.size + self.before else count

    @property
    def behind(self) -> int:
        """Padding behind the image that the last window needs."""
        return max((self.windows - 1) * self.stride + self.reach - self.size - self.before, 0)

    def divisors(self, included: bool) -> NDArray[np.int64]:
        """By how many pixels an average is divided: those of its window that lie in the image, or, ``included``, in the
        image and its padding; never those beyond."""
        low, high = (-self.before, self.size + self.after) if included else (0, self.size)
        starts = np.arange(self.windows) * self.stride - self.before
        return np.asarray(np.minimum(starts + self.kernel, high) - np.maximum(starts, low), np.int64)


def _explicit_pool(graph: ir.Graph, node: ir.Node) -> None:
    """A pool with ``ceil_mode`` as PyTorch has it: a Pad, the same pool without padding, the divisors of the border."""
    sizes = _spatial(node)
    rank = len(sizes)

    def numbers(name: str, default: Sequence[int]) -> list[int]:
        return [int(n) for n in node.attributes.get_ints(name, default)]

    pads = numbers("pads", [0] * (2 * rank))
    kernel, ones = numbers("kernel_shape", ()), [1] * rank
    parts = (sizes, pads[:rank], pads[rank:], kernel, numbers("strides", ones), numbers("dilations", ones))
    axes = [_Axis(*numbers) for numbers in zip(*parts, strict=True)]
    node.attributes["ceil_mode"] = ir.AttrInt64("ceil_mode", 0)
    if all(axis.windows == axis.rounded_down for axis in axes):
        return
    average = node.op_type == "AveragePool"
    value, name = node.inputs[0], str(node.name)
    assert value is not None and value.shape is not None
    before, behind = [axis.before for axis in axes], [axis.behind for axis in axes]
    widths = new_constant(graph, f"{name}/pads", np.array([0, 0, *before, 0, 0, *behind], np.int64))
    filler = new_constant(graph, f"{name}/filler", np.array(0.0 if average else _LOWEST, np.float32))
    padded = ir.node("Pad", [value, widths, filler], name=f"{name}/Pad")
    out = padded.outputs[0]
    out.name, out.type = f"{name}/padded", value.type
    out.shape = ir.Shape([*list(value.shape)[:2], *(axis.size + axis.before + axis.behind for axis in axes)])
    padded.metadata_props.update(node.metadata_props)
    graph.insert_before(node, padded)
    node.replace_input_with(0, out)
    included = bool(node.attributes.get_int("count_include_pad", 0))
    for left_out in ("pads", "count_include_pad"):
        node.attributes.pop(left_out, None)
    if average:
        _scaled(graph, node, prod(kernel) / _product([axis.divisors(included) for axis in axes]))


def _product(axes: Sequence[NDArray[np.int64]]) -> NDArray[np.float64]:
    found = np.ones((1, 1), np.float64)
    for axis in axes:
        found = found[..., None] * axis
    return found


def _scaled(graph: ir.Graph, node: ir.Node, factors: NDArray[np.float64]) -> None:
    """Multiply what a node gives, for all of its readers."""
    if (factors == 1.0).all():
        return
    old = node.outputs[0]
    constant = new_constant(graph, f"{node.name}/factors", factors.astype(np.float32))
    product = ir.node("Mul", [old, constant], name=f"{node.name}/Mul")
    _take_over(graph, node, old, product)


def _take_over(graph: ir.Graph, after: ir.Node, old: ir.Value, made: ir.Node) -> None:
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


def _matrix_resize(graph: ir.Graph, node: ir.Node) -> None:
    """A Resize of an image with fixed sizes as a product with one matrix for each of its two axes."""
    height, width = _spatial(node)
    value, name, old = node.inputs[0], str(node.name), node.outputs[0]
    assert value is not None and old.shape is not None
    rows, columns = (int(n) for n in list(old.shape)[2:] if isinstance(n, int))
    down = new_constant(graph, f"{name}/rows", _responses(node, height, rows))
    across = new_constant(graph, f"{name}/columns", np.ascontiguousarray(_responses(node, width, columns).T))
    first = ir.node("MatMul", [down, value], name=f"{name}/rows")
    first.outputs[0].name, first.outputs[0].type = f"{name}/resized_rows", old.type
    first.outputs[0].shape = ir.Shape([*list(old.shape)[:2], rows, width])
    first.metadata_props.update(node.metadata_props)
    graph.insert_before(node, first)
    second = ir.node("MatMul", [first.outputs[0], across], name=name)
    _take_over(graph, node, old, second)
    graph.remove(node, safe=True)


def _responses(node: ir.Node, size: int, wanted: int) -> NDArray[np.float32]:
    """What a Resize makes of each unit vector: its matrix ``[wanted, size]``, by the definition of ONNX."""
    from onnx.reference import ReferenceEvaluator

    attributes = [ir.serde.serialize_attribute(attr) for key, attr in node.attributes.items() if key != "axes"]
    single = onnx.helper.make_node("Resize", ["x", "", "", "sizes"], ["y"])
    single.attribute.extend(attributes)
    body = onnx.helper.make_graph(
        [single],
        "axis",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, size])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, wanted])],
        [onnx.numpy_helper.from_array(np.array([1, wanted], np.int64), "sizes")],
    )
    model = onnx.helper.make_model(body, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=9)
    run = ReferenceEvaluator(model).run
    units = np.eye(size, dtype=np.float32)
    return np.stack([np.asarray(run(None, {"x": unit[None]}))[0, 0] for unit in units], axis=1)


def _spatial(node: ir.Node) -> list[int]:
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
