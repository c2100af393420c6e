"""TensorRT's real builder accepts the step graphs of the CIFAR-10 UNets in fp16, at their full size."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx (pip install edgepure[rtx])")

import torch

from edgepure.bundle.entries import GraphEntry, graph_signature
from edgepure.engines.tensorrt.build import build_plan
from edgepure.engines.tensorrt.module import import_tensorrt
from edgepure.engines.tensorrt.options import BuildOptions
from edgepure.images.spec import ImageSpec
from edgepure.rows.plan import COLUMNS
from edgepure_export.graphs.precision import load_graph, to_half
from edgepure_export.graphs.step import StepModule
from edgepure_export.graphs.to_onnx import export_graph
from edgepure_export.graphs.weights_pool import WeightsPool
from edgepure_export.sources.resolve import resolve_diffusion

IMAGE = ImageSpec(channels=3, height=32, width=32)


def network(name: str) -> torch.nn.Module:
    """DDPM's UNet (35.7 million parameters), or DDPM++ deep (107 million), with random weights."""
    if name == "ddpm":
        from benchmarks.ddpm_unet import DdpmUnet

        return DdpmUnet().eval()
    return resolve_diffusion("score-sde:cifar10-ddpmpp-deep-continuous?weights=random").model


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("name", ["ddpm", "ddpmpp-deep"])
def test_the_step_graph_builds_in_fp16(tmp_path: Path, name: str) -> None:
    inputs, outputs = graph_signature("step", IMAGE, 10)
    entry = GraphEntry(file="step.onnx", opset=20, precision="fp16", inputs=inputs, outputs=outputs)
    shapes = {
        "x": (3, 32, 32),
        "ref": (3, 32, 32),
        "noise": (3, 32, 32),
        "mask": (1, 32, 32),
        "coeffs": (len(COLUMNS),),
    }
    examples = {key: torch.zeros(2, *shape) for key, shape in shapes.items()}
    (tmp_path / "full").mkdir()
    with WeightsPool(tmp_path / "full") as pool:
        full = pool.save(export_graph("step", StepModule(network(name)), examples, ["x_next"]).model, "step.onnx")
    (tmp_path / "half").mkdir()
    with WeightsPool(tmp_path / "half") as pool:
        model = load_graph(full)
        to_half(model, "fp16")
        half = pool.save(model, "step.onnx")
    seen: list[float] = []
    options = BuildOptions((1, 8), targets=("sm89",))
    plan = build_plan(import_tensorrt("tensorrt-rtx"), half, entry, "step", options, seen.append)
    weights = (tmp_path / "half" / "weights.bin").stat().st_size
    assert len(plan) > weights  # the engine holds its weights
    assert seen == sorted(seen) and seen[-1] > 0.5
