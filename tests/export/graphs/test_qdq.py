"""Q/DQ nodes: where they go, their numbers, and what the quantized graph computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from codes import raises_code
from onnx import TensorProto, helper, numpy_helper

from edgepure_export.bundle.after_export import open_session
from edgepure_export.graphs.precision import load_graph, to_half
from edgepure_export.graphs.qdq import count_qdq, insert_qdq, quantizable, scheme_of, schemes_of, taps
from edgepure_export.graphs.qdq_rules import Tap
from edgepure_export.graphs.quantized_numbers import Range, fake_quantized
from edgepure_export.graphs.weights_pool import WeightsPool

RNG = np.random.default_rng(0)
CHANNELS = np.array([1, 4, 0.25, 0], np.float32)
WEIGHT = RNG.standard_normal((4, 3, 3, 3)).astype(np.float32) * CHANNELS[:, None, None, None]
BIAS = RNG.standard_normal(4).astype(np.float32)
MATRIX = RNG.standard_normal((4, 5)).astype(np.float32)
X = RNG.uniform(-1.0, 3.0, (2, 3, 8, 8)).astype(np.float32)
RANGES: dict[Tap, Range] = {
    ("conv", "input"): (-1.0, 3.0),
    ("conv", "output"): (-150.0, 150.0),
    ("other", "input"): (-1.0, 3.0),
    ("other", "output"): (-150.0, 150.0),
    ("gemm", "input"): (-80.0, 80.0),
}


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """Two convolutions of the same x, their sum, its mean over the pixels, a Gemm; and a product without a weight."""
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["x", "w"], ["d"], name="other", pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["c", "d"], ["s"], name="add"),
        helper.make_node("GlobalAveragePool", ["s"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "m"], ["y"], name="gemm"),
        helper.make_node("MatMul", ["x", "x"], ["z"], name="no_weight"),
    ]
    body = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 5]),
            helper.make_tensor_value_info("z", TensorProto.FLOAT, ["batch", 3, 8, 8]),
        ],
        [numpy_helper.from_array(a, n) for n, a in (("w", WEIGHT), ("b", BIAS), ("m", MATRIX))],
    )
    path = tmp_path / "toy.onnx"
    onnx.save(helper.make_model(body, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path)
    return path


def constant(model: ir.Model, name: str) -> np.ndarray:
    tensor = model.graph.initializers[name].const_value
    assert tensor is not None
    return tensor.numpy()


def run(model: ir.Model, folder: Path) -> list[np.ndarray]:
    with WeightsPool(folder, "q.bin") as pool:
        path = pool.save(model, "q.onnx")
    return open_session(path, threads=1).run(None, {"x": X})  # type: ignore[no-any-return]


def test_which_operators_and_tensors(graph: Path) -> None:
    model = load_graph(graph)
    assert quantizable(model) == ["conv", "other", "gemm"]
    assert set(taps(model, scheme_of("int8", "cpu"))) == set(RANGES)
    assert {side for _, side in taps(model, scheme_of("int8", "tensorrt"))} == {"input"}


def test_weights_are_symmetric_and_per_channel(graph: Path) -> None:
    model = load_graph(graph)
    insert_qdq(model, RANGES, scheme_of("int8", "tensorrt"))
    q, scale = constant(model, "conv/weight_int8"), constant(model, "conv/weight_scale")
    assert q.dtype == np.int8 and scale.shape == (4,)
    assert not constant(model, "conv/weight_zero").any()
    np.testing.assert_allclose(q * scale[:, None, None, None], WEIGHT, atol=float(scale.max()) / 2 * 1.001)
    # a large channel does not cost a small one its precision
    np.testing.assert_allclose(q[2] * scale[2], WEIGHT[2], atol=np.abs(WEIGHT[2]).max() / 250)
    assert np.isfinite(scale).all() and not q[3].any()  # a channel of zeros


@pytest.mark.parametrize("provider", ["cpu", "openvino", "tensorrt"])
@pytest.mark.parametrize("factor", [1e-3, 1e-6])
def test_small_weights_keep_their_digits_where_scales_are_fp32(graph: Path, provider: str, factor: float) -> None:
    """Layers behind inputs of 0..255 or equalised rates have such weights; fp16's smallest number is fp16's alone."""

    def small() -> ir.Model:
        model = load_graph(graph)
        for name in ("w", "b", "m"):
            value = model.graph.initializers[name]
            assert value.const_value is not None
            value.const_value = ir.tensor(value.const_value.numpy() * np.float32(factor), name=name)
        return model

    ranges = {
        tap: (low * factor, high * factor) if tap != ("conv", "input") else (low, high)
        for tap, (low, high) in RANGES.items()
    }
    ranges["other", "input"] = RANGES["other", "input"]
    exact, half = small(), small()
    insert_qdq(exact, ranges, scheme_of("int8", provider))
    scale = constant(exact, "other/weight_scale")
    np.testing.assert_allclose(scale[:3] * 127, np.abs(WEIGHT).max(axis=(1, 2, 3))[:3] * factor, rtol=1e-5)
    assert np.abs(constant(exact, "other/weight_int8")[:3]).max(axis=(1, 2, 3)).min() == 127
    insert_qdq(half, ranges, scheme_of("int8", provider), fp16_scales=True)
    lowest = min(float(constant(half, n).min()) for n in half.graph.initializers if n.endswith("weight_scale"))
    assert lowest >= 2.0**-14


def test_tensorrt_gets_symmetric_activations_float_bias_and_inputs_alone(graph: Path) -> None:
    model = load_graph(graph)
    report = insert_qdq(model, RANGES, scheme_of("int8", "tensorrt"))
    assert report.operators == {"Conv": 2, "Gemm": 1}
    # x is quantized once, and dequantized for each reader; the weights have a DQ alone
    assert (report.quantize_nodes, report.dequantize_nodes) == (2, 6) == count_qdq(model)
    assert constant(model, "x_scale") == pytest.approx(3.0 / 127)
    assert constant(model, "x_zero") == 0 and constant(model, "x_zero").dtype == np.int8
    conv = next(node for node in model.graph if node.name == "conv")
    assert conv.inputs[2] is not None and conv.inputs[2].is_initializer()
    untouched = next(node for node in model.graph if node.name == "no_weight")
    assert [v.name for v in untouched.inputs if v is not None] == ["x", "x"]


def test_the_cpu_gets_zero_points_integer_bias_and_quantized_outputs(graph: Path) -> None:
    model = load_graph(graph)
    report = insert_qdq(model, RANGES, scheme_of("int8", "cpu"))
    assert report.operators == {"Conv": 2, "Gemm": 1}
    assert constant(model, "x_zero").dtype == np.uint8
    assert constant(model, "x_scale") == pytest.approx(4.0 / 255)
    assert constant(model, "x_zero") == round(255 / 4)
    bias, unit = constant(model, "conv/bias_int32"), constant(model, "conv/bias_scale")
    assert bias.dtype == np.int32
    np.testing.assert_allclose(bias * unit, BIAS, atol=float(unit.max()))
    add = next(node for node in model.graph if node.name == "add")
    producers = [v.producer() for v in add.inputs if v is not None]
    assert [p.op_type for p in producers if p is not None] == ["DequantizeLinear", "DequantizeLinear"]


@pytest.mark.parametrize(("precision", "target"), [("int8", "cpu"), ("int8", "tensorrt"), ("fp8", "tensorrt")])
def test_it_computes_what_rounding_by_hand_computes(graph: Path, tmp_path: Path, precision: str, target: str) -> None:
    scheme = scheme_of(precision, target)
    model = load_graph(graph)
    before = run(load_graph(graph), tmp_path)
    insert_qdq(model, RANGES, scheme)
    with WeightsPool(tmp_path, "r.bin") as pool:
        path = pool.save(model, "r.onnx")
    onnx.checker.check_model(str(path), full_check=True)
    if precision == "fp8":  # as the runtime opens fp8 graphs on the CPU
        from edgepure.engines.onnxruntime import OnnxRuntimeEngine

        with OnnxRuntimeEngine(path, "cpu", 1, precision="fp8") as engine:
            after = list(engine.run({"x": X}).values())
    else:
        after = open_session(path, threads=1).run(None, {"x": X})
    x = fake_quantized(X, (-1.0, 3.0), ir.DataType[scheme.activations])
    w = constant(model, f"conv/weight_{scheme.weights.lower()}").astype(np.float32)
    w = w * constant(model, "conv/weight_scale")[:, None, None, None]
    by_hand = float(np.abs(_pooled(x, w) @ MATRIX - after[0]).max())
    size = float(np.abs(before[0]).max())
    assert by_hand < {"int8": 0.05, "fp8": 0.1}[precision] * size  # by hand, the product with the matrix is exact
    assert np.abs(before[0] - after[0]).max() > 1e-3 * size
    np.testing.assert_array_equal(before[1], after[1])  # what is not quantized is what it was


def test_weights_for_the_matrix_product_mean_the_same_and_give_the_same_result(graph: Path, tmp_path: Path) -> None:
    direct, product = load_graph(graph), load_graph(graph)
    insert_qdq(direct, RANGES, scheme_of("int8", "cpu"))
    insert_qdq(product, RANGES, schemes_of("int8", "cpu")[1])
    for name, zero in (("conv", -1), ("other", -1), ("gemm", 0)):
        assert set(constant(product, f"{name}/weight_zero")) == {zero}
        moved = constant(product, f"{name}/weight_int8").astype(int) - zero
        np.testing.assert_array_equal(moved, constant(direct, f"{name}/weight_int8"))
    assert constant(direct, "conv/weight_int8").min() == -127  # the end that would overflow when moved too far
    folders = tmp_path / "direct", tmp_path / "product"
    for folder in folders:
        folder.mkdir()
    for one, other in zip(run(direct, folders[0]), run(product, folders[1]), strict=True):
        np.testing.assert_array_equal(one, other)


def _pooled(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Mean over the pixels of both convolutions, ``[B, 4]``."""
    import torch

    out = torch.nn.functional.conv2d(torch.from_numpy(x), torch.from_numpy(w), padding=1).numpy()
    return np.asarray(2.0 * out.mean(axis=(2, 3)) + BIAS)


def test_kept_layers_are_left_alone(graph: Path) -> None:
    model = load_graph(graph)
    report = insert_qdq(model, RANGES, scheme_of("int8", "cpu"), keep={"conv", "other"})
    assert report.kept == ("conv", "other") and report.operators == {"Gemm": 1}
    conv = next(node for node in model.graph if node.name == "conv")
    assert [v.name for v in conv.inputs if v is not None] == ["x", "w", "b"]


def test_what_is_not_quantized_may_run_in_fp16(graph: Path) -> None:
    model = load_graph(graph)
    insert_qdq(model, RANGES, scheme_of("int8", "tensorrt"))
    to_half(model, "fp16")
    conv = next(node for node in model.graph if node.name == "conv")
    assert {v.dtype for v in (*conv.inputs, *conv.outputs) if v is not None} == {ir.DataType.FLOAT16}
    # no Cast between a DequantizeLinear and its reader, or an engine could not fuse them
    for value in conv.inputs[:2]:
        assert value is not None
        producer = value.producer()
        assert producer is not None and producer.op_type == "DequantizeLinear"


def test_a_bias_far_larger_than_its_products_still_fits(graph: Path, tmp_path: Path) -> None:
    model = load_graph(graph)
    node = next(n for n in model.graph if n.name == "conv")
    bias = node.inputs[2]
    assert bias is not None
    bias.const_value = ir.tensor(np.array([1e6, -1e6, 1e6, 1e6], np.float32), name="b")
    wide = {("conv", "output"): (-2e6, 2e6), ("gemm", "input"): (-2e6, 2e6)}
    insert_qdq(model, {**RANGES, **wide}, scheme_of("int8", "cpu"))
    restored = constant(model, "conv/bias_int32").astype(np.float64) * constant(model, "conv/bias_scale")
    np.testing.assert_allclose(restored, [1e6, -1e6, 1e6, 1e6], rtol=1e-6)


@pytest.mark.parametrize("bad", [(float("nan"), 1.0), (0.0, float("inf")), (2.0, 1.0)])
def test_a_range_without_meaning_is_refused(graph: Path, bad: Range) -> None:
    with raises_code("E-quantize-range"):
        insert_qdq(load_graph(graph), {**RANGES, ("conv", "input"): bad}, scheme_of("int8", "cpu"))


def test_a_missing_range_is_refused(graph: Path) -> None:
    with raises_code("E-quantize-range"):
        insert_qdq(load_graph(graph), {}, scheme_of("int8", "cpu"))
