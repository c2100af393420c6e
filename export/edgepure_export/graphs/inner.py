"""A network inside a traced one, as a graph of its own: what two graphs of a bundle share is traced once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir


def inner_graph(model: ir.Model, inputs: Mapping[str, str], outputs: Sequence[str]) -> ir.Model | None:
    """What computes some values of a traced graph from others; the traced one stays as it is.

    Args:
        model: as it was traced.
        inputs: names of the inputs, and which values of the traced graph they are. They have its batch.
        outputs: names of values of the traced graph.

    Returns:
        Another model; weights in memory are those of the first. None: other inputs of the traced graph are in there.
    """
    whole = model.graph.clone()
    values = ir.convenience.create_value_mapping(whole)
    if not {*inputs.values(), *outputs} <= values.keys():
        return None
    first = values[next(iter(inputs.values()))]
    for node in whole:  # the exporter asks an input of its choice for the batch
        if node.op_type == "Shape" and _of_batch(node) and node.inputs[0] in whole.inputs:
            node.replace_input_with(0, first)
    try:
        graph = ir.convenience.extract(whole, list(dict.fromkeys(inputs.values())), list(outputs))
    except ValueError:  # something else than the inputs is needed
        return None
    names = {source: name for name, source in inputs.items()}
    for value in graph.inputs:
        value.name = names[str(value.name)]
    return ir.Model(graph, ir_version=model.ir_version, producer_name=model.producer_name)


def _of_batch(node: ir.Node) -> bool:
    flag = node.attributes.get_int
    return flag("start", 0) == 0 and flag("end", 0) == 1
