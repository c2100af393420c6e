"""Variants for OpenVINO: they run as what they say they are, decide as fp32 does, and stay on their engine."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from codes import raises_code

import edgepure
from edgepure.bundle.bundle import Bundle
from edgepure.bundle.entries import VariantName
from edgepure.engines import open_graph
from edgepure.engines.openvino import import_openvino
from edgepure.images.dataset import LabelledImages
from edgepure_calibration.provider import ProviderSettings
from edgepure_calibration.quantize import Limits, QuantizeSettings, quantize
from edgepure_calibration.quantize.draft import build
from edgepure_calibration.quantize.sensitivity import output_error

CONVOLUTION = "unet.conv_in/Conv_0"
OPENVINO = ProviderSettings("openvino", threads=1, slots=8)


def computed_in(path: Path) -> Counter[tuple[str, str]]:
    """What OpenVINO made of a graph: how often each kind of operator computes in each type."""
    core = import_openvino().Core()
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = core.compile_model(core.read_model(path), "CPU", options)
    nodes = [n.get_rt_info() for n in compiled.get_runtime_model().get_ops()]
    return Counter((n["layerType"].value, n["runtimePrecision"].value.lower()) for n in nodes)


def capable(kind: str) -> bool:
    """Whether OpenVINO has kernels of this type for this processor."""
    return kind in import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def test_int8_runs_on_integers(digits: Bundle, measured: Any, tmp_path: Path) -> None:
    candidate = build(digits, "int8", "openvino", tmp_path, measured.ranges["int8", "tensorrt"], provider="openvino")
    assert candidate.native and candidate.opened_as == "int8"
    found = computed_in(candidate.files["step"])
    integers = {"i8", "u8"}  # which of them it takes for the activations depends on the processor
    convolutions = sum(count for (kind, dtype), count in found.items() if kind == "Convolution" and dtype in integers)
    assert convolutions == candidate.reports["step"]["qdq"]["operators"]["Conv"] > 10
    assert not {dtype for kind, dtype in found if kind == "Convolution"} - integers


@pytest.mark.parametrize("precision", ["int8", "bf16"])
def test_the_twin_on_onnx_runtime_tells_what_openvino_does(
    digits: Bundle, measured: Any, tmp_path: Path, precision: VariantName
) -> None:
    ranges = measured.ranges["int8", "tensorrt"] if precision == "int8" else None
    errors = {}
    for provider in ("openvino", "cpu"):
        folder = tmp_path / provider
        made = build(digits, precision, "openvino", folder, ranges, graphs=("step",), provider=provider)
        with open_graph(made.runnable["step"], provider, precision=made.opened_as, threads=1) as engine:
            errors[provider] = output_error(engine, measured.samples)
    assert errors["openvino"] > 0.0
    if precision == "bf16" and not capable("BF16"):  # it computes in fp32 then, with weights that were rounded
        assert errors["openvino"] < errors["cpu"]
    else:
        assert errors["openvino"] == pytest.approx(errors["cpu"], rel=0.5)


def test_layers_that_are_kept_go_to_bf16(digits: Bundle, measured: Any, tmp_path: Path) -> None:
    ranges = measured.ranges["int8", "tensorrt"]
    made = build(digits, "int8", "openvino", tmp_path, ranges, (CONVOLUTION,), ("step",), provider="openvino")
    node = next(n for n in ir.load(made.files["step"]).graph if n.name == CONVOLUTION)
    assert node.inputs[0] is not None and node.inputs[0].dtype == ir.DataType.BFLOAT16
    assert made.reports["step"]["qdq"]["kept"] == (CONVOLUTION,)
    if capable("BF16"):
        assert computed_in(made.files["step"])["Convolution", "bf16"] == 1


def test_bf16_is_computed_in_bf16_but_the_timestep_is_not(digits: Bundle, measured: Any, tmp_path: Path) -> None:
    made = build(digits, "bf16", "openvino", tmp_path, graphs=("step", "unet"), provider="openvino")
    if capable("BF16"):
        assert (
            computed_in(made.files["step"])["Convolution", "bf16"]
            == made.reports["step"]["half"]["operators"]["Conv"]
            > 10
        )
    # 999 and 1000 are one number in bf16: a rounded timestep would give equal results.
    x = np.random.default_rng(0).standard_normal((1, 1, 16, 16)).astype(np.float32)
    with open_graph(made.files["unet"], "openvino", precision="bf16", threads=1) as engine:
        (first,), (second,) = (engine.run({"x": x, "t": np.full(1, t, np.float32)}).values() for t in (999.0, 1000.0))
    assert np.abs(first - second).max() > 0.0


def test_accepted_into_a_bundle_and_for_openvino_alone(
    own_digits: Path, clean: LabelledImages, attacked: LabelledImages
) -> None:
    limits = Limits(flips=0.08, accuracy=0.08, speed=0.0)
    settings = QuantizeSettings("int8", "openvino", ("uniform",), redraws=3, limits=limits)
    outcome = quantize(own_digits, settings, clean, attacked, provider=OPENVINO)
    assert outcome, outcome.reasons
    assert outcome.evidence["measured_on"] == "the variant itself" and outcome.evidence["kernel"] is None
    assert [s["batch"] for s in outcome.evidence["speed"]] == [1, 8]
    with edgepure.load(own_digits, "openvino", precision="int8", threads=1) as purifier:
        labels = [r.label for r in purifier.run(clean.images[:8], "uniform", noise=1)]
    with edgepure.load(own_digits, threads=1) as plain:
        assert [r.label for r in plain.run(clean.images[:8], "uniform", noise=1)] == labels
    for provider in ("cpu", "cuda", "tensorrt"):
        with raises_code("E-provider-variant"):
            edgepure.load(own_digits, provider, precision="int8")


def test_what_openvino_has_no_kernels_for(own_digits: Path, clean: LabelledImages) -> None:
    before = (own_digits / "bundle.json").read_bytes()
    with raises_code("E-variant-kernels"):
        quantize(own_digits, QuantizeSettings("fp8", "openvino"), clean, provider=OPENVINO)
    with raises_code("E-provider-kernels"):
        quantize(own_digits, QuantizeSettings("fp8", "tensorrt"), clean, provider=OPENVINO, on_progress=pytest.fail)
    assert (own_digits / "bundle.json").read_bytes() == before
