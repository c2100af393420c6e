"""What is done to a traced graph before it is written: its names, a trap of one engine, nothing of this machine."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from edgepure.errors import ExportError

#: Readers of this IR version are as old as those of the opset.
IR_VERSION = 9
#: Names of the last two axes of images, where a graph takes any size.
SIZE = ("height", "width")


def keep_padding(model: ir.Model) -> None:
    """Part every Pad from a pool behind it by an operator that changes nothing.

    ONNX Runtime (from 1.17) takes the padding into the MaxPool whatever its value, and a MaxPool pads with -inf; from
    1.20 on into the AveragePool too, which then divides by another number: 1.20 leaves the padding out, 1.21 to 1.24
    count it wrongly where the sides differ.
    """
    lowest: ir.Value | None = None
    for pool in [node for node in model.graph if node.op_type in ("MaxPool", "AveragePool")]:
        padded = pool.inputs[0]
        producer = padded.producer() if padded is not None else None
        if padded is None or producer is None or producer.op_type != "Pad":
            continue
        if lowest is None:
            tensor = ir.tensor(np.array(np.finfo(np.float32).min), name="lowest_float32")
            lowest = ir.Value(
                name=tensor.name, shape=ir.Shape(()), type=ir.TensorType(tensor.dtype), const_value=tensor
            )
            model.graph.register_initializer(lowest)
        parted = ir.node("Max", [padded, lowest])
        parted.outputs[0].name = f"{padded.name}_parted"
        parted.outputs[0].shape, parted.outputs[0].type = padded.shape, padded.type
        parted.metadata_props.update(pool.metadata_props)
        model.graph.insert_before(pool, parted)
        pool.replace_input_with(0, parted.outputs[0])


def name_nodes(name: str, model: ir.Model) -> None:
    """Name each node ``<module path>/<operator>_<number>``."""
    counts: Counter[str] = Counter()
    path = name
    for node in nodes(model):
        path = _module_of(node, path, name)
        key = f"{path}/{node.op_type}"
        node.name = f"{key}_{counts[key]}"
        counts[key] += 1


def _module_of(node: ir.Node, previous: str, root: str) -> str:
    """Path of the module that a node comes from."""
    if node.op_type in ("Conv", "ConvTranspose", "Gemm"):
        # A convolution that took in a batch norm carries the norm's scope; its weight keeps its own name.
        weight = node.inputs[1]
        if weight is not None and weight.is_initializer() and str(weight.name).endswith(".weight"):
            return str(weight.name).removesuffix(".weight")
    scopes = node.metadata_props.get("pkg.torch.onnx.name_scopes")
    if not scopes:  # a node of the optimiser's own: it stands with the one before it
        return previous
    modules = [scope for scope in ast.literal_eval(scopes)[:-1] if scope]
    return modules[-1] if modules else root


def strip(name: str, model: ir.Model) -> None:
    """Remove what tells of the exporting machine (stack traces with file paths) and date the file format back."""
    model.ir_version = IR_VERSION
    model.producer_name, model.producer_version = "edgepure", ""
    model.doc_string = None
    model.metadata_props.clear()
    for graph in model.graphs():
        graph.doc_string = None
        graph.metadata_props.clear()
        values = [*graph.inputs, *graph.outputs, *graph.initializers.values()]
        for node in graph:
            node.doc_string = None
            node.metadata_props.clear()
            values.extend(node.outputs)
        for value in values:
            value.doc_string = None
            value.metadata_props.clear()
    model.graph.name = name


def nodes(model: ir.Model) -> Iterator[ir.Node]:
    for graph in model.graphs():
        yield from graph


def name_sizes(name: str, model: ir.Model) -> None:
    """Let the sizes of images be called by `SIZE`; the exporter writes them as formulas."""
    for value in (*model.graph.inputs, *model.graph.outputs):
        dims = list(value.shape) if value.shape is not None else []
        if len(dims) == 4:
            if any(isinstance(dim, int) for dim in dims[2:]):
                raise ExportError(
                    f"{name}: {value.name!r} has the shape {dims}, so the network works at one size only; export it "
                    "without any_size",
                    code="E-export-size",
                )
            value.shape = ir.Shape([dims[0], dims[1], *SIZE])
