"""TensorRT's real builder accepts every variant of the digits, and a UNet of the size that CIFAR-10 takes, in fp16."""

from __future__ import annotations

from pathlib import Path

import pytest
from codes import raises_code

pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx (pip install edgepure[rtx])")

from gpu_stand_in import copy_of_digits

from edgepure.bundle.bundle import Bundle
from edgepure.bundle.entries import VariantName
from edgepure.engines.tensorrt.build import build_engines
from edgepure_calibration.quantize.draft import build
from edgepure_calibration.quantize.quantize import write_variant
from edgepure_export.graphs.precision import load_graph
from edgepure_export.graphs.qdq import scheme_of, taps


def add_variant(folder: Path, work: Path, precision: VariantName, target: str) -> None:
    """A variant as `edgepure quantize` makes it, with ranges that nobody measured."""
    bundle = Bundle.open(folder)
    ranges = None
    if precision in ("int8", "fp8"):
        model = load_graph(bundle.graph_path("step"))
        ranges = dict.fromkeys(taps(model, scheme_of(precision, target)), (-4.0, 4.0))
    write_variant(bundle, build(bundle, precision, target, work, ranges), {"measured": "nothing"})


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8", "fp8"])
def test_every_variant_of_the_digits_builds(tmp_path: Path, precision: VariantName) -> None:
    folder = copy_of_digits(tmp_path)
    add_variant(folder, tmp_path / "work", precision, "tensorrt")
    built = {engine.graph: engine for engine in build_engines(folder, precision, batches=(2,), provider="tensorrt-rtx")}
    assert {name: engine.precision for name, engine in built.items()} == {
        "classifier": "fp32",
        "mask": "fp32",
        "step": precision,
        "unet": precision,
    }
    lowest = {"fp8": ("sm89", "sm120")}.get(precision, ("sm80", "sm86", "sm89", "sm120"))
    assert built["step"].key.targets == lowest
    assert all(engine.bytes > 100_000 and engine.path.is_file() for engine in built.values())


def test_a_variant_for_the_cpu_is_refused(tmp_path: Path) -> None:
    folder = copy_of_digits(tmp_path)
    add_variant(folder, tmp_path / "work", "int8", "cpu")
    with raises_code("E-provider-variant"):
        build_engines(folder, "int8", provider="tensorrt-rtx")
