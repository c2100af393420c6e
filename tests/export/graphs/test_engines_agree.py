"""What engines compute differently is rewritten at export, so that all of them give what PyTorch gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
import torch.nn.functional as F
from codes import raises_code
from torch import Tensor, nn

from edgepure.engines.kinds import KINDS
from edgepure.engines.open import open_graph
from edgepure_export.graphs.portable.rewrites import make_portable
from edgepure_export.graphs.to_onnx import export_graph

ON_CPU = [name for name, kind in KINDS.items() if kind.device == "cpu"]


class Layers(nn.Module):
    """A function of an image as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def resized(size: tuple[int, int], mode: str) -> Callable[[Tensor], Tensor]:
    return lambda x: F.interpolate(x, size=size, mode=mode, align_corners=False, antialias=True)


CASES: dict[str, Callable[[Tensor], Tensor]] = {
    "average, last window in the padding": nn.AvgPool2d(3, 3, 1, ceil_mode=True),
    "average, padding counted": nn.AvgPool2d(4, 3, 1, ceil_mode=True),
    "average, padding not counted": nn.AvgPool2d(5, 3, 2, ceil_mode=True, count_include_pad=False),
    "average, no padding": nn.AvgPool2d(2, 2, ceil_mode=True),
    "average, nothing rounded": nn.AvgPool2d(3, 2, 1, ceil_mode=True),
    "maximum, last window in the padding": lambda x: F.max_pool2d(x - 9.0, 3, 3, 1, ceil_mode=True),
    "maximum of negative values": lambda x: F.max_pool2d(x - 9.0, 2, 2, ceil_mode=True),
    "maximum, dilated": nn.MaxPool2d(3, 3, 1, dilation=2, ceil_mode=True),
    "two pools": lambda x: F.max_pool2d(F.avg_pool2d(x, 2, 2, ceil_mode=True), 2, 2, ceil_mode=True),
    "linear, smaller": resized((5, 6), "bilinear"),
    "linear, larger": resized((13, 17), "bilinear"),
    "cubic, smaller and larger": resized((5, 17), "bicubic"),
}


@pytest.mark.parametrize("case", CASES)
def test_every_engine_gives_what_pytorch_gives(case: str, tmp_path: Path) -> None:
    module, path = Layers(CASES[case]).eval(), tmp_path / "graph.onnx"
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((3, 4, 9, 11), np.float32))
    graph = export_graph("layers", module, {"x": x[:2]}, ["y"])
    ir.save(graph.model, path)
    wanted = module(x).numpy()
    for provider in ON_CPU:
        with open_graph(path, provider, threads=1) as engine:
            found = engine.run({"x": x.numpy()})["y"]
        assert found.shape == wanted.shape
        np.testing.assert_allclose(found, wanted, atol=2e-5, err_msg=provider)


def test_what_cannot_be_rewritten_is_refused() -> None:
    """A pool that rounds up, over an image of any size."""
    x = ir.Value(name="x", shape=ir.Shape(["batch", 3, "height", 8]), type=ir.TensorType(ir.DataType.FLOAT))
    attributes = [ir.AttrInt64s("kernel_shape", [2, 2]), ir.AttrInt64("ceil_mode", 1)]
    pool = ir.Node("", "MaxPool", [x], attributes, name="pool")
    graph = ir.Graph([x], list(pool.outputs), nodes=[pool], opset_imports={"": 20})
    with raises_code("E-export-portable") as caught:
        make_portable(ir.Model(graph, ir_version=9))
    assert "ceil_mode=False" in str(caught.value)
