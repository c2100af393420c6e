"""Graphs whose sizes are worked out by tensors: known beforehand, so that they can be exported again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from shape_graph import SIDE, shape_graph
from torch import Tensor, nn

from edgepure_export import OnnxModule, WeightsPool, export_graph


class Wrapped(nn.Module):
    """As a user has it in a module of his own."""

    def __init__(self, graph: OnnxModule) -> None:
        super().__init__()
        self.network = graph

    def forward(self, image: Tensor) -> Any:
        return self.network(image)


def test_what_depends_on_sizes_alone_is_known_and_the_graph_is_exported_again(tmp_path: Path) -> None:
    model = shape_graph()
    module = OnnxModule(model, Path()).fixed(3, SIDE, SIDE)
    names = list(module.output_names)
    graph = export_graph("net", Wrapped(module), {"image": torch.rand((2, 3, SIDE, SIDE))}, names)
    with WeightsPool(tmp_path) as pool:
        pool.save(graph.model, "net.onnx")
    image = torch.rand((5, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(1))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    first = onnxruntime.InferenceSession(model.SerializeToString(), options)
    again = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"), options)
    feeds = {"image": image.numpy()}
    for expected, mine, exported in zip(first.run(names, feeds), module(image), again.run(names, feeds), strict=True):
        np.testing.assert_allclose(mine.numpy(), expected, atol=1e-6)
        np.testing.assert_allclose(exported, expected, atol=1e-6)


def test_a_graph_stays_what_it_is_with_gradients() -> None:
    plain, fixed = OnnxModule(shape_graph(), Path()), OnnxModule(shape_graph(), Path()).fixed(3, SIDE, SIDE)
    found = []
    for module in (plain, fixed):
        image = torch.full((4, 3, SIDE, SIDE), 0.3, requires_grad=True)
        (gradient,) = torch.autograd.grad(sum(output.square().sum() for output in module(image)), image)
        found.append(gradient)
    torch.testing.assert_close(found[0], found[1])
    fixed.double()(torch.rand((1, 3, SIDE, SIDE), dtype=torch.float64))
