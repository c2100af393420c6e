"""Every operator that exports can contain, on every engine of the CPU, against PyTorch (benchmarks/operators)."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from codes import raises_code
from numpy.typing import NDArray
from torch import nn

from benchmarks.operators.cases import CASES
from benchmarks.operators.differences import TOLERANCE, differences
from benchmarks.operators.graphs import image, made
from edgepure.engines.kinds import KINDS
from edgepure_export.graphs.portable.rewrites import make_portable
from edgepure_export.graphs.to_onnx import export_graph

ON_CPU = [name for name, kind in KINDS.items() if kind.device == "cpu" and find_spec(kind.module)]
#: What OpenVINO refuses, loudly, and what it computes in float32 whatever the graph says.
NOT_IN_OPENVINO = {"deformed", "through bfloat16", "through float16"}


#: What must be in no graph, because some version of some engine computes it wrongly.
NEVER = ("DFT", "IsInf", "ReduceLogSumExp")


@pytest.mark.parametrize("group", CASES)
def test_every_operator_gives_what_pytorch_gives(group: str, tmp_path: Path) -> None:
    graphs: dict[tuple[str, ...], tuple[Path, dict[str, NDArray[np.float32]]]] = {}
    for provider in ON_CPU:
        left_out = NOT_IN_OPENVINO if provider == "openvino" else set()
        names = tuple(name for name in CASES[group] if name not in left_out)
        if names not in graphs:
            path = tmp_path / f"{len(graphs)}.onnx"
            graph, wanted = made([CASES[group][name] for name in names], path)
            check_portable(graph.model)
            graphs[names] = path, {f"y{n}": value.numpy() for n, value in enumerate(wanted)}
        path, right = graphs[names]
        found = differences(path, provider, image(3).numpy(), right)
        far = {names[int(key[1:])]: value for key, value in found.items() if not value <= TOLERANCE}
        assert not far, provider


def check_portable(model: ir.Model) -> None:
    """Nothing that engines of other versions than the installed ones compute differently."""
    for node in model.graph:
        attributes = node.attributes
        assert node.op_type not in NEVER
        assert node.op_type != "Pad" or attributes.get_string("mode", "constant") != "wrap"
        if node.op_type in ("AveragePool", "MaxPool"):
            assert not attributes.get_int("ceil_mode", 0)
            producer = node.inputs[0].producer() if node.inputs[0] is not None else None
            assert producer is None or producer.op_type != "Pad"
        if node.op_type == "AveragePool" and attributes.get_int("count_include_pad", 0):
            assert len(set(attributes.get_ints("pads", ()))) <= 1


def test_other_divisor_and_rounding_up_is_refused() -> None:
    with raises_code("E-graph-trace"):
        export_graph("pool", nn.AvgPool2d(3, 2, ceil_mode=True, divisor_override=2), {"x": image(2)}, ["y"])


def test_a_transform_over_an_axis_of_any_size_is_refused() -> None:
    x = ir.Value(name="x", shape=ir.Shape(["batch", "height", 2]), type=ir.TensorType(ir.DataType.FLOAT))
    node = ir.Node("", "DFT", [x], name="transform")
    graph = ir.Graph([x], list(node.outputs), nodes=[node], opset_imports={"": 20})
    with raises_code("E-export-portable"):
        make_portable(ir.Model(graph, ir_version=9))
