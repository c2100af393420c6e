"""Each rule of 16 bits by itself: which operators of a small graph it fits, and what it leaves behind."""

from __future__ import annotations

import onnx_ir as ir
import pytest
from toy_graph import named, toy_graph

from edgepure.errors import ExportError
from edgepure_export.graphs.half_rules import (
    Dequantized,
    Halves,
    Heavy,
    InFloat,
    Light,
    Quantized,
    Rounded,
)
from edgepure_export.graphs.rules import Rule, rewrite

FLOAT, FP16, BF16 = ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16


def graph(nodes: str, *, w: str = "1, -2") -> ir.Graph:
    """With the weight ``w`` of 1 x 1 convolutions, and scale and zero point of Q/DQ nodes."""
    return toy_graph(nodes, f"float[2, 1, 1, 1] w = {{{w}}}", "float s = {0.5}", "int8 z = {0}")


def fits(rule: type[Rule], graph: ir.Graph, halves: Halves) -> list[str]:
    made = rule(halves)  # type: ignore[call-arg]
    return [str(n.name) for n in graph if (made.pattern is None or n.op_type in made.pattern) and made.check(n)]


def types(values: object) -> list[ir.DataType | None]:
    return [value.dtype for value in values]  # type: ignore[attr-defined]


def test_heavy() -> None:
    toy = graph("a = Conv(x, w)  b = Relu(a)  c = ConvTranspose(b, w)  y = Conv(c, w)")
    assert fits(Heavy, toy, Halves(toy, FP16, frozenset({"a"}))) == ["c", "y"]
    halves = Halves(toy, BF16, frozenset())
    assert fits(Heavy, toy, halves) == ["a", "y"], "no transposed convolution in bf16"
    Heavy(halves).rewrite(named(toy, "a"))
    assert types(named(toy, "a").inputs) == [BF16, BF16] and types(named(toy, "a").outputs) == [BF16]
    assert named(toy, "a").inputs[0].producer().op_type == "Cast"  # type: ignore[union-attr]
    assert named(toy, "y").inputs[1].dtype == FLOAT, "other readers of the weight keep theirs"  # type: ignore[union-attr]


def test_heavy_shares_a_cast_and_a_weight_and_refuses_what_is_too_large() -> None:
    toy = graph("a = Conv(x, w)  b = Conv(x, w)  y = Add(a, b)")
    halves = Halves(toy, FP16, frozenset())
    for name in ("a", "b"):
        Heavy(halves).rewrite(named(toy, name))
    assert list(named(toy, "a").inputs) == list(named(toy, "b").inputs)
    large = graph("y = Conv(x, w)", w="1, 70000")
    with pytest.raises(ExportError, match=r"the weight 'w' has values up to 7e\+04"):
        Heavy(Halves(large, FP16, frozenset())).rewrite(named(large, "y"))
    Heavy(Halves(large, BF16, frozenset())).rewrite(named(large, "y"))


def test_dequantized_and_quantized_follow_what_they_serve() -> None:
    toy = graph(
        "q = QuantizeLinear(x, s, z)  d = DequantizeLinear(q, s, z)  a = Conv(d, w) "
        "p = QuantizeLinear(a, s, z)  y = DequantizeLinear(p, s, z)"
    )
    halves = Halves(toy, FP16, frozenset())
    assert fits(Dequantized, toy, halves) == ["d"], "y feeds nothing heavy"
    assert fits(Quantized, toy, halves) == []
    Heavy(halves).rewrite(named(toy, "a"))
    assert fits(Quantized, toy, halves) == ["p"], "of q nothing is in 16 bits"
    Quantized(halves).rewrite(named(toy, "p"))
    assert types(named(toy, "p").inputs) == [FP16, FP16, ir.DataType.INT8]
    assert types(named(toy, "p").outputs) == [ir.DataType.INT8]


def test_light_goes_along_between_heavy_ones_only() -> None:
    toy = graph("a = Conv(x, w)  b = Relu(a)  c = Add(b, x)  d = Sqrt(b)  e = Conv(b, w)  f = Relu(e)  y = Add(f, d)")
    halves = Halves(toy, FP16, frozenset())
    for name in ("a", "e"):
        Heavy(halves).rewrite(named(toy, name))
    assert fits(Light, toy, halves) == ["b"], "f and y come after the last heavy one"
    Light(halves).rewrite(named(toy, "b"))
    assert fits(Light, toy, halves) == ["b"], "c reads fp32, too"


def test_everything_else_reads_fp32() -> None:
    toy = graph("a = Conv(x, w)  b = Sqrt(a)  c = Exp(a)  y = Add(b, c)")
    halves = Halves(toy, FP16, frozenset())
    rewrite(toy, [Heavy(halves), InFloat(halves)])
    assert types(named(toy, "b").inputs) == [FLOAT] == types(named(toy, "b").outputs)
    assert named(toy, "b").inputs[0] is named(toy, "c").inputs[0], "one Cast for both"
    assert [node.op_type for node in toy] == ["Cast", "Conv", "Cast", "Sqrt", "Exp", "Add"]


def test_rounded_computes_in_fp32() -> None:
    toy = graph("a = Conv(x, w)  y = Sqrt(a)")
    halves = Halves(toy, FP16, frozenset())
    rewrite(toy, [Heavy(halves), InFloat(halves)])
    rewrite(toy, [Rounded(toy)])
    conv = named(toy, "a")
    assert types(conv.inputs) == [FLOAT, FLOAT] and types(conv.outputs) == [FLOAT]
    ((reader, _),) = conv.outputs[0].uses()
    assert reader.op_type == "Cast" and types(reader.outputs) == [FP16]
