"""16-bit graphs made of fp32 ones: what is converted, what is not, and that it still computes the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from codes import raises_code

import edgepure
from edgepure.bundle.bundle import Bundle
from edgepure_export.bundle.after_export import open_session
from edgepure_export.graphs.precision import emulated, heavy_nodes, load_graph, matching, to_half
from edgepure_export.graphs.weights_pool import WeightsPool

FLOAT = ir.DataType.FLOAT
EXACT = {"InstanceNormalization", "BatchNormalization", "Softmax", "ReduceSum", "Max", "Min"}


@pytest.fixture(scope="module")
def digits() -> Bundle:
    return Bundle.open(edgepure.demo_bundle(), verify=False)


def save(model: ir.Model, folder: Path, name: str = "graph") -> Path:
    with WeightsPool(folder, f"{name}.bin") as pool:
        return pool.save(model, f"{name}.onnx")


def run(path: Path, feeds: dict[str, np.ndarray]) -> np.ndarray:
    (output,) = open_session(path, threads=1).run(None, dict(feeds))
    return np.asarray(output)


def dtypes(node: ir.Node) -> set[ir.DataType]:
    """Of the float inputs and outputs of a node."""
    values = [v for v in (*node.inputs, *node.outputs) if v is not None]
    return {v.dtype for v in values if v.dtype in (FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)}  # type: ignore[misc]


@pytest.mark.parametrize(("precision", "low"), [("fp16", ir.DataType.FLOAT16), ("bf16", ir.DataType.BFLOAT16)])
def test_heavy_operators_in_16_bits_and_the_rest_in_32(digits: Bundle, precision: str, low: ir.DataType) -> None:
    model = load_graph(digits.graph_path("step"))
    report = to_half(model, precision)
    graph = model.graph
    assert {v.dtype for v in (*graph.inputs, *graph.outputs)} == {FLOAT}
    converted = set(heavy_nodes(model, precision))
    for node in graph:
        if node.name in converted:
            assert dtypes(node) == {low}, node.name
        # what a value must not lose digits in: normalisations, softmax, and the row arithmetic around the network
        elif node.op_type in EXACT or (str(node.name).startswith("step/") and node.op_type != "Cast"):
            assert dtypes(node) == {FLOAT}, node.name
    assert sum(report.operators[op] for op in ("Conv", "MatMul", "Gemm")) == 17
    assert report.casts == sum(node.op_type == "Cast" for node in graph)
    assert graph.opset_imports[""] == 20


def test_fp16_is_a_valid_graph_that_computes_the_same(digits: Bundle, tmp_path: Path) -> None:
    vectors = digits.selftest().graphs
    for name in ("step", "unet", "classifier"):
        model = load_graph(digits.graph_path(name))
        to_half(model, "fp16")
        path = save(model, tmp_path, name)
        onnx.checker.check_model(str(path), full_check=True)  # types of all values included
        expected = next(iter(vectors[name].outputs.values()))
        found = run(path, dict(vectors[name].inputs))
        assert 0.0 < np.abs(found - expected).max() < 1e-2 * max(1.0, np.abs(expected).max())


@pytest.mark.parametrize(("precision", "most"), [("fp16", 2e-3), ("bf16", 2e-2)])
def test_a_twin_rounds_as_the_graph_does(digits: Bundle, tmp_path: Path, precision: str, most: float) -> None:
    vectors = digits.selftest().graphs["step"]
    model = load_graph(digits.graph_path("step"))
    to_half(model, precision)
    emulated(model)
    heavy = [node for node in model.graph if node.op_type == "Conv"]
    assert all(dtypes(node) == {FLOAT} for node in heavy)  # it runs where there are no 16-bit kernels
    error = np.abs(run(save(model, tmp_path), dict(vectors.inputs)) - vectors.outputs["x_next"]).max()
    assert most / 100 < error < most  # it is rounded, and no more than that


def test_the_same_graph_twice_gives_the_same_bytes(digits: Bundle, tmp_path: Path) -> None:
    files = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        model = load_graph(digits.graph_path("step"))
        to_half(model, "fp16")
        files.append(save(model, tmp_path / name).read_bytes())
    assert files[0] == files[1]


def test_weights_take_half_the_room(digits: Bundle, tmp_path: Path) -> None:
    sizes = {}
    for precision in ("fp32", "fp16"):
        model = load_graph(digits.graph_path("unet"))
        if precision == "fp16":
            to_half(model, "fp16")
        save(model, tmp_path, precision)
        sizes[precision] = (tmp_path / f"{precision}.bin").stat().st_size
    assert sizes["fp16"] < 0.52 * sizes["fp32"]


def test_kept_layers_stay_in_fp32(digits: Bundle) -> None:
    model = load_graph(digits.graph_path("step"))
    keep = matching(heavy_nodes(model, "fp16"), ["unet.attention", "unet.conv_in/Conv_0"])
    assert keep == {
        "unet.attention/MatMul_0",
        "unet.attention/MatMul_1",
        "unet.attention.out/Conv_0",
        "unet.attention.qkv/Conv_0",
        "unet.conv_in/Conv_0",
    }
    report = to_half(model, "fp16", keep)
    assert set(report.kept) == keep
    for node in model.graph:
        if node.name in keep:
            assert dtypes(node) == {FLOAT}


def test_an_unknown_layer_is_refused_with_its_neighbours(digits: Bundle) -> None:
    names = heavy_nodes(load_graph(digits.graph_path("step")), "fp16")
    with raises_code("E-layer-name"):
        matching(names, ["unet.conv_inn"])


def test_a_weight_beyond_fp16_is_refused_and_bf16_takes_it(digits: Bundle) -> None:
    for precision, fits in (("fp16", False), ("bf16", True)):
        model = load_graph(digits.graph_path("step"))
        node = next(n for n in model.graph if n.name == "unet.conv_in/Conv_0")
        weight = node.inputs[1]
        assert weight is not None and weight.const_value is not None
        weight.const_value = ir.tensor(1e7 * weight.const_value.numpy(), name=weight.name)
        if fits:
            to_half(model, precision)
        else:
            with raises_code("E-precision-range"):
                to_half(model, precision)
