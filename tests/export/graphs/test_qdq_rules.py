"""Each rule of quantization by itself: what it fits, and what it leaves around one tensor of a small graph."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest
from toy_graph import named, toy_graph

from edgepure.engines.kind import Scheme
from edgepure_export.graphs.qdq import scheme_of
from edgepure_export.graphs.qdq_rules import (
    IntegerBias,
    Quantization,
    QuantizedInput,
    QuantizedOutput,
    QuantizedWeight,
    Tap,
    quantizable,
)
from edgepure_export.graphs.quantized_numbers import SMALLEST_FP32, Range
from edgepure_export.graphs.rules import Rule

SCHEME = scheme_of("int8", "cpu")
RANGES: dict[Tap, Range] = {(name, side): (-1.0, 3.0) for name in "abcy" for side in ("input", "output")}  # type: ignore[misc]


def graph(nodes: str) -> ir.Graph:
    """With the weight ``w`` of 1 x 1 convolutions, a bias ``k`` of two channels, and a matrix ``m``."""
    weights = ["float[2, 1, 1, 1] w = {1, -0.25}", "float[2] k = {0.5, 4}"]
    return toy_graph(nodes, *weights, f"float[4, 4] m = {{{', '.join('1' * 16)}}}")


def begin(graph: ir.Graph, scheme: Scheme = SCHEME, keep: tuple[str, ...] = ()) -> Quantization:
    return Quantization(graph, RANGES, scheme, SMALLEST_FP32, keep)


def fits(rule: Rule, graph: ir.Graph) -> list[str]:
    return [str(n.name) for n in graph if (rule.pattern is None or n.op_type in rule.pattern) and rule.check(n)]


def constant(value: ir.Value | None) -> np.ndarray:
    assert value is not None and value.const_value is not None
    return value.const_value.numpy()


def dequantized(node: ir.Node, index: int) -> ir.Node:
    """The DequantizeLinear that an input comes from."""
    value = node.inputs[index]
    assert value is not None
    made = value.producer()
    assert made is not None and made.op_type == "DequantizeLinear"
    return made


@pytest.mark.parametrize(
    ("nodes", "fitting"),
    [
        ("a = Conv(x, w)  y = Conv(a, w, k)", ["a", "y"]),
        ("y = MatMul(x, m)", ["y"]),
        ("y = MatMul(x, x)", []),  # no weight
        ("a = Relu(w)  y = Conv(x, a)", []),  # the weight is computed
        ("a = Relu(k)  y = Conv(x, w, a)", []),  # so is the bias
        ("y = ConvTranspose(x, w)", []),
        ("a = Flatten(x)  b = Gemm(a, a)  y = Reshape(b, b)", []),
    ],
)
def test_which_operators(nodes: str, fitting: list[str]) -> None:
    assert [str(node.name) for node in graph(nodes) if quantizable(node)] == fitting


def test_the_input_is_quantized_once_and_dequantized_for_each_reader() -> None:
    toy = graph("a = Conv(x, w)  b = Conv(x, w)  c = Conv(x, w)  y = Add(a, b)")
    work = begin(toy, keep=("c",))
    rule = QuantizedInput(work)
    assert fits(rule, toy) == ["a", "b"]
    for name in ("a", "b"):
        rule.rewrite(named(toy, name))
    first, second = (dequantized(named(toy, name), 0) for name in ("a", "b"))
    assert first is not second and list(first.inputs) == list(second.inputs)
    assert [n.op_type for n in toy].count("QuantizeLinear") == 1
    assert named(toy, "c").inputs[0] is toy.inputs[0]
    assert constant(first.inputs[1]) == np.float32(4.0 / 255) == work.units[named(toy, "a")]
    assert [str(node.name) for node in work.done] == ["a", "b"]


def test_the_later_rules_fit_only_where_the_input_is_quantized() -> None:
    toy = graph("a = Conv(x, w, k)  y = Conv(x, w, k)")
    work = begin(toy)
    QuantizedInput(work).rewrite(named(toy, "y"))
    for rule in (QuantizedWeight(work), IntegerBias(work), QuantizedOutput(work)):
        assert fits(rule, toy) == ["y"]


@pytest.mark.parametrize("zero", [0, -1])
def test_the_weight_has_a_scale_a_channel(zero: int) -> None:
    toy = graph("y = Conv(x, w)")
    work = begin(toy, replace(SCHEME, conv_weight_zero=zero))
    QuantizedInput(work).rewrite(named(toy, "y"))
    QuantizedWeight(work).rewrite(named(toy, "y"))
    q, scale, point = dequantized(named(toy, "y"), 1).inputs
    assert (constant(q).ravel() - zero).tolist() == [127, -127] and constant(point).tolist() == [zero, zero]
    np.testing.assert_allclose(constant(scale), [1 / 127, 0.25 / 127], rtol=1e-6)
    np.testing.assert_allclose(work.units[named(toy, "y")], 4 / 255 * constant(scale), rtol=1e-6)


def test_the_bias_counts_in_units_of_input_and_weight() -> None:
    toy = graph("a = Conv(x, w)  y = Conv(a, w, k)")
    work = begin(toy)
    for name in ("a", "y"):
        QuantizedInput(work).rewrite(named(toy, name))
        QuantizedWeight(work).rewrite(named(toy, name))
    rule = IntegerBias(work)
    assert fits(rule, toy) == ["y"], "a has no bias"
    assert fits(IntegerBias(begin(toy, replace(SCHEME, int32_bias=False))), toy) == []
    rule.rewrite(named(toy, "y"))
    q, scale = dequantized(named(toy, "y"), 2).inputs
    assert constant(q).dtype == np.int32
    np.testing.assert_allclose(constant(q) * constant(scale), [0.5, 4], rtol=1e-4)


def test_the_output_is_read_quantized_and_keeps_its_name() -> None:
    toy = graph("a = Conv(x, w)  b = Relu(a)  y = Conv(b, w)")
    work = begin(toy, replace(SCHEME, outputs=frozenset({"Conv"})))
    for name in ("a", "y"):
        QuantizedInput(work).rewrite(named(toy, name))
        QuantizedOutput(work).rewrite(named(toy, name))
    assert dequantized(named(toy, "b"), 0).inputs[0].producer().inputs[0] is named(toy, "a").outputs[0]  # type: ignore[union-attr]
    (output,) = toy.outputs
    assert output.name == "y" and output.producer().op_type == "DequantizeLinear"  # type: ignore[union-attr]
    assert fits(QuantizedOutput(begin(toy, replace(SCHEME, outputs=frozenset()))), toy) == []
