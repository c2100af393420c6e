"""Networks inside a traced one: cut out where nothing else is in there, and exactly what a trace of their own gives."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import tiny_models
import torch
from torch import Tensor, nn

from edgepure_export import export_bundle
from edgepure_export.bundle import graph_files
from edgepure_export.graphs.inner import inner_graph
from edgepure_export.graphs.step import TracedStep, UnetModule
from edgepure_export.graphs.to_onnx import export_graph, finished, trace

STATE = {
    "x": torch.randn(2, 3, 8, 8),
    "ref": torch.randn(2, 3, 8, 8),
    "noise": torch.randn(2, 3, 8, 8),
    "mask": torch.ones(2, 1, 8, 8),
    "coeffs": torch.randn(2, 16),
}
INSIDE = {"x": "z", "t": "t"}


class AsksForTheBatch(nn.Module):
    """Reshapes by numbers that it reads from its input, as many networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.unet = tiny_models.TinyUNet()

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        b, c, h, w = x.shape
        out: Tensor = self.unet(x.reshape(b, c * h, w).reshape(b, c, h, w), t)
        return out + torch.zeros((b, 1, 1, 1)) + t.expand(b)[:, None, None, None]


class LooksElsewhere(TracedStep):
    """Its network sees the image that came in, too."""

    def forward(self, x: Tensor, ref: Tensor, noise: Tensor, mask: Tensor, coeffs: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        after, z, t, epsilon = super().forward(x, ref, noise, mask, coeffs)
        return after, z, t, epsilon + ref


def run(model: ir.Model, feeds: Mapping[str, Tensor], folder: Path) -> list[Any]:
    ir.save(model, folder / "graph.onnx")
    session = ort.InferenceSession(folder / "graph.onnx", providers=["CPUExecutionProvider"])
    return list(session.run(None, {name: value.numpy() for name, value in feeds.items()}))


@pytest.mark.parametrize("unet", [tiny_models.TinyUNet(learned=True), AsksForTheBatch()])
def test_it_is_the_graph_of_the_network(tmp_path: Path, unet: nn.Module) -> None:
    whole = trace("step", TracedStep(unet.eval()), STATE, TracedStep.OUTPUTS)
    before = [node.name for node in whole.graph]
    model = inner_graph(whole, INSIDE, ["epsilon"])
    assert model is not None
    assert [node.name for node in whole.graph] == before
    graph = finished("unet", model, ["x", "t"])
    alone = export_graph("unet", UnetModule(unet), {"x": STATE["x"], "t": torch.tensor([3.0, 500.0])}, ["epsilon"])
    assert [(node.op_type, node.name) for node in graph.model.graph] == [
        (node.op_type, node.name) for node in alone.model.graph
    ]
    assert (graph.inputs, graph.outputs) == (alone.inputs, alone.outputs)
    feeds = {"x": torch.randn(5, 3, 8, 8), "t": torch.tensor([1.0, 20.0, 300.0, 999.0, 0.0])}
    np.testing.assert_array_equal(run(graph.model, feeds, tmp_path)[0], run(alone.model, feeds, tmp_path)[0])


def test_what_needs_more_than_its_inputs_is_none() -> None:
    whole = trace("step", LooksElsewhere(tiny_models.TinyUNet()), STATE, TracedStep.OUTPUTS)
    assert inner_graph(whole, INSIDE, ["epsilon"]) is None
    assert inner_graph(whole, {"x": "no such value"}, ["epsilon"]) is None
    step = inner_graph(whole, {name: name for name in STATE}, ["x_next"])
    assert step is not None
    assert [value.name for value in step.graph.outputs] == ["x_next"]


def test_a_bundle_is_traced_once_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    traced = []

    def counted(name: str, *args: Any, **kwargs: Any) -> ir.Model:
        traced.append(name)
        return trace(name, *args, **kwargs)

    monkeypatch.setattr(graph_files, "trace", counted)
    monkeypatch.setattr(graph_files, "export_graph", lambda *args, **kwargs: pytest.fail("traced again"))
    export_bundle(
        tiny_models.TinyClassifier(), tiny_models.TinyUNet(), tmp_path / "b", image_size=8, blocks=tiny_models.BLOCKS
    )
    assert traced == ["classifier", "step"]


def test_a_network_that_is_not_whole_inside_is_traced_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_files, "inner_graph", lambda *args: None)
    out = export_bundle(None, tiny_models.TinyUNet(), tmp_path / "b", image_size=8)
    assert sorted(path.name for path in out.glob("*.onnx")) == ["step.onnx", "unet.onnx"]
