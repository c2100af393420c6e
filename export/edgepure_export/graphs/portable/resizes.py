"""A Resize that looks at more than its neighbours, as two products with matrices."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from ..rules import new_constant
from .parts import added, spatial, take_over


def matrix_resize(graph: ir.Graph, node: ir.Node) -> None:
    """A Resize of an image with fixed sizes as a product with one matrix for each of its two axes."""
    height, width = spatial(node)
    value, name, old = node.inputs[0], str(node.name), node.outputs[0]
    assert value is not None and old.shape is not None
    rows, columns = (int(n) for n in list(old.shape)[2:] if isinstance(n, int))
    down = new_constant(graph, f"{name}/rows", _responses(node, height, rows))
    across = new_constant(graph, f"{name}/columns", np.ascontiguousarray(_responses(node, width, columns).T))
    shape = ir.Shape([*list(old.shape)[:2], rows, width])
    resized = added(node, "MatMul", [down, value], f"{name}/resized_rows", shape)
    second = ir.node("MatMul", [resized, across], name=name)
    take_over(graph, node, old, second)
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
