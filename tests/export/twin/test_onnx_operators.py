"""Every operator of the twin against ONNX Runtime, and its gradient against finite differences."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from codes import raises_code
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from edgepure_export.twin.onnx_module import OnnxModule
from edgepure_export.twin.onnx_operators import OPERATORS

Array = NDArray[Any]


def numbers(*shape: int, seed: int = 0, low: float | None = None) -> Array:
    """float32, normal, or uniform in [low, low + 2] for operators with a domain."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(shape) if low is None else low + 2.0 * rng.random(shape)
    return np.asarray(values, np.float32)


def whole(*values: int) -> Array:
    return np.array(values, np.int64)


@dataclass(frozen=True)
class Case:
    """One node. The first ``free`` arrays are inputs of the graph, the others constants."""

    operator: str
    arrays: tuple[Array | None, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    free: int = 1
    outputs: int = 1
    opset: int = 20

    def __str__(self) -> str:
        return self.operator + "".join(f"-{k}={v}" for k, v in self.attributes.items() if not hasattr(v, "dims"))


X = numbers(2, 3, 4, 5)
IMAGE = numbers(2, 3, 8, 8, seed=1)
TO, FACTORS = np.array([1, 1, 2, 2], np.float32), np.array([1, 1, 1.7, 0.6], np.float32)
COORDINATES = "coordinate_transformation_mode"
UNARY = ["Abs", "Ceil", "Cos", "Erf", "Exp", "Floor", "HardSigmoid", "HardSwish", "Identity", "Mish", "Neg", "Relu"]
UNARY += ["Reciprocal", "Round", "Selu", "Sigmoid", "Sign", "Sin", "Softplus", "Softsign", "Tan", "Tanh", "Celu"]
COMPARE = ["Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"]
REDUCE = [name for name in OPERATORS if name.startswith("Reduce")]
BOOLS = (X > 0, np.asarray(numbers(2, 1, 4, 5, seed=3) > 0))
SCALE, ZERO = np.array([0.05], np.float32), np.array([3], np.int8)


CASES = [
    *(Case(name, (X,)) for name in UNARY),
    *(Case(name, (numbers(2, 3, low=0.1),)) for name in ("Log", "Sqrt")),
    *(Case(name, (X, numbers(3, 1, 5, seed=2)), free=2) for name in ("Add", "Sub", "Mul", "Div", *COMPARE)),
    Case("Div", (whole(7, -7, 9), whole(2, 2, 4)), free=2),
    Case("Mod", (X, np.full((1,), 0.7, np.float32)), {"fmod": 1}),
    Case("Mod", (whole(7, -7, 9), whole(2, 3, 4))),
    *(
        Case(name, (X, numbers(4, 5, seed=2), numbers(3, 1, 1, seed=4)), free=3)
        for name in ("Max", "Min", "Sum", "Mean")
    ),
    *(Case(name, BOOLS, free=2) for name in ("And", "Or", "Xor")),
    Case("Not", BOOLS[:1]),
    Case("PRelu", (X, numbers(3, 1, 1, low=0.1)), free=2),
    Case("Pow", (numbers(2, 3, low=0.1), np.array(1.7, np.float32))),
    Case("Pow", (X, np.array(2.0, np.float32))),
    Case("Clip", (X, np.array(-0.5, np.float32), np.array(0.7, np.float32))),
    Case("Clip", (X, None, np.array(0.7, np.float32))),
    Case("Where", (BOOLS[1], X, numbers(5, seed=2)), free=3),
    Case("IsNaN", (np.array([1.0, np.nan], np.float32),)),
    Case("IsInf", (np.array([1.0, np.inf, -np.inf], np.float32),), {"detect_negative": 0}),
    Case("LeakyRelu", (X,), {"alpha": 0.2}),
    Case("Elu", (X,), {"alpha": 0.8}),
    Case("Gelu", (X,)),
    Case("Gelu", (X,), {"approximate": "tanh"}),
    Case("Cast", (X,), {"to": TensorProto.INT64}),
    Case("Cast", (X,), {"to": TensorProto.FLOAT16}),
    Case("Cast", (BOOLS[0],), {"to": TensorProto.FLOAT}),
    Case("CastLike", (X, whole(1))),
    *(Case(name, (numbers(2, 3, 4, 5, low=0.1), whole(1, -1)), {"keepdims": 0}) for name in REDUCE),
    Case("ReduceMean", (X,)),
    Case("ReduceSum", (X,), {"noop_with_empty_axes": 1}),
    Case("ReduceMax", (X,), {"axes": [1, 2], "keepdims": 1}, opset=17),
    Case("Softmax", (X,)),
    Case("Softmax", (X,), {"axis": 1}),
    Case("LogSoftmax", (X,), {"axis": 2}),
    Case("ArgMax", (X,), {"axis": 1}),
    Case("ArgMin", (X,), {"axis": -1, "keepdims": 0}),
    Case("CumSum", (X, np.array(1, np.int64))),
    Case("TopK", (X, whole(3)), {"axis": 2}, outputs=2),
    Case("Shape", (X,), {"start": 1}),
    Case("Size", (X,)),
    Case("Reshape", (X, whole(0, -1, 5))),
    Case("Reshape", (numbers(0, 3), whole(0, 7)), {"allowzero": 1}),
    Case("Flatten", (X,), {"axis": 2}),
    Case("Flatten", (X,), {"axis": -1}),
    Case("Transpose", (X,), {"perm": [0, 3, 1, 2]}),
    Case("Transpose", (X,)),
    Case("Squeeze", (numbers(1, 3, 1), whole(-1))),
    Case("Squeeze", (numbers(1, 3, 1),)),
    Case("Unsqueeze", (numbers(2, 3), whole(-1, 0))),
    Case("Concat", (X, numbers(2, 1, 4, 5)), {"axis": -3}, free=2),
    Case("Split", (X, whole(2, 3)), {"axis": -1}, outputs=2),
    Case("Split", (X,), {"axis": 3, "num_outputs": 3}, outputs=3),
    Case("Slice", (X, whole(1, -4), whole(99, -1), whole(3, 2))),
    Case("Slice", (X, whole(-1, 0), whole(-(2**63), 4), whole(3, 2), whole(-2, 3))),
    Case("Slice", (X, whole(3), whole(1), whole(2))),
    Case("Gather", (X, np.array(-1, np.int64)), {"axis": 2}),
    Case("Gather", (X, np.array([[0, -1], [1, 1]], np.int64)), {"axis": 1}),
    Case("GatherElements", (numbers(2, 3), np.array([[0, -1], [1, 1]], np.int64)), {"axis": 1}),
    Case("GatherND", (X, np.array([[0, 2], [1, -1]], np.int64))),
    Case("ScatterND", (numbers(4, 3), np.array([[2], [0]], np.int64), numbers(2, 3, seed=5)), {}, free=1),
    Case("Expand", (numbers(3, 1), whole(2, 1, 4))),
    Case("Tile", (numbers(2, 3), whole(2, 1))),
    Case("ConstantOfShape", (whole(2, 3),), {"value": numpy_helper.from_array(np.array([2.5], np.float32))}),
    Case("ConstantOfShape", (whole(2, 3),)),
    Case("Range", (np.array(1, np.int64), np.array(9, np.int64), np.array(3, np.int64))),
    Case("Trilu", (X, np.array(1, np.int64))),
    Case("Trilu", (X,), {"upper": 0}),
    Case("Pad", (X, whole(0, 1, 2, 0, 0, 0, 1, 3), np.array(0.5, np.float32))),
    Case("Pad", (X, whole(2, -1), np.array(0.0, np.float32), whole(-1))),
    *(Case("Pad", (X, whole(0, 0, 2, 1, 0, 0, 1, 4)), {"mode": mode}) for mode in ("reflect", "edge", "wrap")),
    Case("DepthToSpace", (numbers(1, 8, 2, 3),), {"blocksize": 2}),
    Case("DepthToSpace", (numbers(1, 8, 2, 3),), {"blocksize": 2, "mode": "CRD"}),
    Case("SpaceToDepth", (numbers(1, 2, 4, 6),), {"blocksize": 2}),
    Case("Conv", (IMAGE, numbers(4, 3, 3, 3, seed=2), numbers(4)), {"pads": [1, 1, 1, 1], "strides": [2, 2]}, free=3),
    Case("Conv", (IMAGE, numbers(4, 3, 3, 3, seed=2)), {"pads": [0, 1, 1, 2], "dilations": [2, 1]}),
    Case("Conv", (IMAGE, numbers(6, 1, 4, 4, seed=2)), {"group": 3, "auto_pad": "SAME_UPPER", "strides": [3, 3]}),
    Case("Conv", (IMAGE, numbers(2, 3, 3, 3, seed=2)), {"auto_pad": "SAME_LOWER"}),
    Case("Conv", (IMAGE, numbers(2, 3, 3, 3, seed=2)), {"auto_pad": "VALID"}),
    Case("Conv", (numbers(2, 3, 9), numbers(4, 3, 3)), {}),
    Case("ConvTranspose", (IMAGE, numbers(3, 2, 4, 4), numbers(2)), {"strides": [2, 2], "pads": [1, 1, 1, 1]}, free=3),
    Case(
        "ConvTranspose",
        (IMAGE, numbers(3, 2, 3, 3)),
        {"strides": [2, 2], "pads": [0, 1, 1, 0], "output_padding": [1, 0]},
    ),
    Case("MaxPool", (IMAGE,), {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    Case("MaxPool", (IMAGE,), {"kernel_shape": [2, 2], "pads": [0, 0, 1, 1]}),
    Case("AveragePool", (IMAGE,), {"kernel_shape": [2, 2], "strides": [2, 2]}),
    Case("AveragePool", (IMAGE,), {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}),
    Case("AveragePool", (IMAGE,), {"kernel_shape": [3, 3], "pads": [0, 1, 1, 0], "strides": [2, 2]}),
    Case("AveragePool", (IMAGE,), {"kernel_shape": [3, 3], "pads": [0, 1, 1, 0], "count_include_pad": 1}),
    Case("GlobalAveragePool", (IMAGE,)),
    Case("GlobalMaxPool", (IMAGE,)),
    Case(
        "BatchNormalization",
        (IMAGE, numbers(3), numbers(3, seed=1), numbers(3, seed=2), numbers(3, low=0.5)),
        {"epsilon": 1e-3},
        free=3,
    ),
    Case("InstanceNormalization", (IMAGE, numbers(3), numbers(3, seed=1)), {"epsilon": 1e-3}, free=3),
    Case("GroupNormalization", (numbers(2, 4, 3, 3), numbers(2), numbers(2, seed=1)), {"num_groups": 2}, free=3),
    Case(
        "GroupNormalization",
        (numbers(2, 4, 3, 3), numbers(4), numbers(4, seed=1)),
        {"num_groups": 2},
        free=3,
        opset=21,
    ),
    Case("LayerNormalization", (X, numbers(5), numbers(5, seed=1)), {"epsilon": 1e-3}, free=3),
    Case("LayerNormalization", (X, numbers(4, 5)), {"axis": 2}),
    Case("MatMul", (X, numbers(5, 2)), free=2),
    Case("Gemm", (numbers(2, 3), numbers(4, 3, seed=1), numbers(4)), {"transB": 1, "alpha": 0.5, "beta": 2.0}, free=3),
    Case("Gemm", (numbers(3, 2), numbers(3, 4, seed=1)), {"transA": 1}, free=2),
    Case("Einsum", (X, numbers(5, 2)), {"equation": "bchw,wd->bcd"}, free=2),
    Case("QuantizeLinear", (X, SCALE, ZERO)),
    Case("QuantizeLinear", (X, np.array([0.05, 0.1, 0.2], np.float32), np.array([1, 2, 3], np.uint8)), {"axis": 1}),
    Case("QuantizeLinear", (X, SCALE)),
    Case("DequantizeLinear", (np.array([[-3, 100]], np.int8), SCALE, ZERO)),
    Case("DequantizeLinear", (np.array([[5, 9]], np.int32), np.array([0.5, 2.0], np.float32)), {"axis": 1}),
    *(
        Case("Resize", arrays, attributes)
        for arrays, attributes in (
            ((IMAGE, None, TO), {COORDINATES: "asymmetric", "nearest_mode": "floor"}),
            ((IMAGE, None, None, whole(2, 3, 5, 13)), {}),
            ((IMAGE, None, None, whole(2, 3, 5, 13)), {COORDINATES: "asymmetric", "nearest_mode": "round_prefer_ceil"}),
            ((IMAGE, None, None, whole(2, 3, 5, 13)), {"mode": "linear"}),
            ((IMAGE, None, FACTORS), {"mode": "linear", COORDINATES: "half_pixel_symmetric"}),
            ((IMAGE, None, None, whole(2, 3, 1, 16)), {"mode": "linear", COORDINATES: "pytorch_half_pixel"}),
            ((IMAGE, None, None, whole(2, 3, 5, 16)), {"mode": "linear", COORDINATES: "align_corners"}),
            ((IMAGE, None, None, whole(5, 13)), {"mode": "cubic", "axes": [2, 3]}),
            ((IMAGE, None, None, whole(2, 3, 5, 13)), {"mode": "cubic", "exclude_outside": 1, "cubic_coeff_a": -0.5}),
            ((IMAGE, None, None, whole(2, 3, 3, 5)), {"mode": "linear", "antialias": 1}),
            ((IMAGE, None, None, whole(2, 3, 3, 5)), {"mode": "cubic", "antialias": 1, "exclude_outside": 1}),
        )
    ),
]

#: Where finite differences say nothing: rounding has the gradient of the identity by decision.
ROUNDED = {"Cast", "CastLike", "QuantizeLinear"}


def model(case: Case) -> onnx.ModelProto:
    names = [f"a{i}" if array is not None else "" for i, array in enumerate(case.arrays)]
    arrays = dict(zip(names, case.arrays, strict=True))
    outputs = [f"out{i}" for i in range(case.outputs)]
    inputs = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(arrays[n].dtype), arrays[n].shape)  # type: ignore[union-attr]
        for n in names[: case.free]
    ]
    graph = helper.make_graph(
        [helper.make_node(case.operator, names, outputs, name="the_node", **case.attributes)],
        "one",
        inputs,
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        [numpy_helper.from_array(arrays[n], n) for n in names[case.free :] if n],  # type: ignore[arg-type]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", case.opset)], ir_version=9)


def evaluate(case: Case, dtype: torch.dtype = torch.float32) -> tuple[OnnxModule, list[Tensor]]:
    module = OnnxModule(model(case), Path())
    inputs = [torch.from_numpy(np.array(array)) for array in case.arrays[: case.free]]
    if dtype == torch.float64:
        module.double()
        inputs = [t.double() if t.is_floating_point() else t for t in inputs]
    return module, inputs


def run(module: OnnxModule, inputs: list[Tensor]) -> list[Tensor]:
    found = module(*inputs)
    return list(found) if isinstance(found, tuple) else [found]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_agrees_with_onnx_runtime(case: Case) -> None:
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    session = onnxruntime.InferenceSession(model(case).SerializeToString(), options, ["CPUExecutionProvider"])
    feeds = {f"a{i}": array for i, array in enumerate(case.arrays[: case.free])}
    with torch.no_grad():
        found = run(*evaluate(case))
    for mine, theirs in zip(found, session.run(None, feeds), strict=True):
        assert tuple(mine.shape) == theirs.shape
        if case.operator != "QuantizeLinear":  # quantised values are carried as floats
            assert mine.numpy().dtype == theirs.dtype
        scale = max(1.0, np.abs(theirs.astype(np.float64)).max()) if theirs.size else 1.0
        np.testing.assert_allclose(mine.numpy().astype(np.float64), theirs, rtol=0, atol=5e-6 * scale, equal_nan=True)


@pytest.mark.parametrize(
    "case", [c for c in CASES if c.operator not in ROUNDED and "allowzero" not in c.attributes], ids=str
)
def test_gradient_by_finite_differences(case: Case) -> None:
    module, inputs = evaluate(case, torch.float64)
    leaves = [t.requires_grad_() if t.is_floating_point() else t for t in inputs]
    outputs = run(module, leaves)
    smooth = [i for i, t in enumerate(outputs) if t.requires_grad]
    if not smooth:
        assert all(not t.is_floating_point() or not any(x.requires_grad for x in leaves) for t in outputs)
        return
    assert torch.autograd.gradcheck(
        lambda *values: tuple(run(module, list(values))[i] for i in smooth), leaves, fast_mode=True
    )


def test_every_operator_has_a_case() -> None:
    assert set(OPERATORS) == {case.operator for case in CASES}


def test_roots_have_no_gradient_at_zero() -> None:
    """Autograd has infinity there, and NaN after the square that stands before the root in a norm."""
    for case in (Case("Sqrt", (np.zeros(3, np.float32),)), Case("Pow", (np.zeros(3, np.float32), np.float32(0.5)))):
        module, (x,) = evaluate(case)
        x.requires_grad_()
        out = run(module, [x * x])[0]
        out.sum().backward()
        assert out.tolist() == [0.0, 0.0, 0.0]
        assert x.grad is not None and x.grad.tolist() == [0.0, 0.0, 0.0]
    module, (x,) = evaluate(Case("Sqrt", (np.array([-1.0], np.float32),)))
    assert run(module, [x])[0].isnan().all()


def test_rounding_is_straight_through_and_saturation_is_not() -> None:
    x = torch.tensor([0.12, -0.33, 6.9], requires_grad=True)
    module, _ = evaluate(Case("QuantizeLinear", (x.detach().numpy(), SCALE, ZERO)))
    quantised = run(module, [x])[0]
    assert quantised.tolist() == [5.0, -4.0, 127.0]
    quantised.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, torch.tensor([20.0, 20.0, 0.0]))
    half = torch.tensor([1.0 / 3.0], requires_grad=True)
    module, _ = evaluate(Case("Cast", (half.detach().numpy(),), {"to": TensorProto.FLOAT16}))
    run(module, [half])[0].float().sum().backward()
    assert half.grad is not None and half.grad.tolist() == [1.0]


def test_fp8_quantisation() -> None:
    """Against ONNX's own table of FP8 values; ONNX Runtime's CPU kernels round alike."""
    x = numbers(4, 64)
    x[0, 0] = 1e4
    zero = helper.make_tensor("zero", TensorProto.FLOAT8E4M3FN, [], [0.0])
    graph = helper.make_graph(
        [
            helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
        ],
        "fp8",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 64])],
        [numpy_helper.from_array(np.array(0.01, np.float32), "scale"), zero],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    (theirs,) = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"]).run(
        None, {"x": x}
    )
    leaf = torch.from_numpy(x).requires_grad_()
    mine = OnnxModule(proto, Path())(leaf)
    np.testing.assert_allclose(mine.detach().numpy(), theirs, rtol=1e-6)
    mine.sum().backward()
    assert leaf.grad is not None
    assert leaf.grad[0, 0] == 0.0
    assert (leaf.grad.flatten()[1:] == 1.0).all()


REFUSED = [
    (Case("ArgMax", (X,), {"select_last_index": 1}), "select_last_index"),
    (Case("CumSum", (X, np.array(1, np.int64)), {"reverse": 1}), "reverse"),
    (Case("Resize", (X, None, None, whole(2, 3, 2, 2)), {"keep_aspect_ratio_policy": "not_larger"}), "aspect ratio"),
    (Case("ConvTranspose", (IMAGE, numbers(3, 2, 3, 3)), {"auto_pad": "SAME_UPPER"}), "auto_pad"),
]


@pytest.mark.parametrize(("case", "message"), REFUSED, ids=str)
def test_refused_variants_are_named(case: Case, message: str) -> None:
    module, inputs = evaluate(case)
    with raises_code("E-twin-attribute") as caught:
        run(module, inputs)
    assert message in str(caught.value)
    assert "the_node" in str(caught.value)
