"""Small ONNX graphs written as text, for tests of what rewrites graphs."""

from __future__ import annotations

import onnx
import onnx_ir as ir


def toy_graph(nodes: str, *constants: str) -> ir.Graph:
    """From ``x`` [N, 1, 4, 4] to ``y``, in ONNX's text form; the types are inferred, nodes are named as outputs."""
    text = (
        '<ir_version: 9, opset_import: ["" : 20]> toy (float[N, 1, 4, 4] x) => (float[N, C, H, W] y) '
        f"<{', '.join(constants)}> {{ {nodes} }}"
    )
    model = onnx.parser.parse_model(text)
    for node in model.graph.node:
        node.name = node.output[0]
    return ir.from_proto(onnx.shape_inference.infer_shapes(model)).graph


def named(graph: ir.Graph, name: str) -> ir.Node:
    return next(node for node in graph if node.name == name)
