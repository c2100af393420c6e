"""What every exported graph has, and the sentences for modules that cannot become one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import pytest
import tiny_models
import torch
from codes import raises_code
from torch import Tensor, nn

from edgepure_export.bundle.after_export import open_session
from edgepure_export.graphs.step import UnetModule
from edgepure_export.graphs.to_onnx import BATCH, check_file, export_graph

GRAPHS = ("classifier", "mask", "step", "step_learned", "unet")


@pytest.fixture(scope="module")
def unet_graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    unet = UnetModule(tiny_models.TinyUNet())
    inputs = {"x": torch.randn(2, 3, 8, 8), "t": torch.tensor([3.0, 500.0])}
    graph = export_graph("unet", unet, inputs, ["epsilon"])
    path = tmp_path_factory.mktemp("graphs") / "unet.onnx"
    onnx_ir.save(graph.model, path)
    return path


@pytest.mark.parametrize("name", GRAPHS)
def test_rules_of_every_graph(tiny_bundle: Path, name: str) -> None:
    path = tiny_bundle / f"{name}.onnx"
    check_file(path)
    model = onnx.load(path)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 20)]
    assert model.ir_version <= 10
    assert not model.functions
    assert not model.metadata_props
    for value in [*model.graph.input, *model.graph.output]:
        dims = value.type.tensor_type.shape.dim
        assert dims[0].dim_param == BATCH, value.name
        assert all(d.dim_value > 0 for d in dims[1:]), value.name
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    for node in model.graph.node:
        assert node.domain == ""
        assert not node.metadata_props
        assert not node.op_type.startswith("Random")


def test_node_names_lead_to_modules(tiny_bundle: Path) -> None:
    modules = {
        "classifier": {name for name, _ in tiny_models.TinyClassifier().named_modules()},
        "unet": {name for name, _ in tiny_models.TinyUNet().named_modules()},
    }
    for graph, root, own in (
        ("classifier", "classifier", set()),
        ("step", "unet", {"step"}),
        ("mask", "classifier", {"head"}),
    ):
        seen = set()
        for node in onnx.load(tiny_bundle / f"{graph}.onnx", load_external_data=False).graph.node:
            path, operator = node.name.rsplit("/", 1)
            assert operator.rsplit("_", 1)[0] == node.op_type
            if path not in own:
                assert path == root or path.removeprefix(f"{root}.") in modules[root], node.name
                seen.add(path)
        assert len(seen) > 5
    convolutions = [n.name for n in onnx.load(tiny_bundle / "classifier.onnx").graph.node if n.op_type == "Conv"]
    assert convolutions == [f"classifier.{m}/Conv_0" for m in ("stem.0", "body.0.0", "body.1.0")]


def test_a_group_norm_is_four_nodes(unet_graph: Path) -> None:
    """No Shape, no Slice: all axes but the batch are known. Attention is two products and a softmax."""
    nodes = onnx.load(unet_graph).graph.node
    norm = [n.op_type for n in nodes if n.name.startswith("unet.norm1/")]
    assert norm == ["Reshape", "InstanceNormalization", "Reshape", "BatchNormalization"]
    counts = Counter(n.op_type for n in nodes)
    assert counts["MatMul"] == 2
    assert counts["Softmax"] == 1
    assert not {"Shape", "ConstantOfShape", "Expand", "If", "Loop"} & set(counts)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_any_batch_runs(unet_graph: Path, batch: int) -> None:
    session = open_session(unet_graph, threads=1)
    generator = torch.Generator().manual_seed(batch)
    x, t = torch.randn((batch, 3, 8, 8), generator=generator), 999.0 * torch.rand(batch, generator=generator)
    (found,) = session.run(None, {"x": x.numpy(), "t": t.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(found, tiny_models.TinyUNet()(x, t).numpy(), rtol=0, atol=1e-5)


def test_opset_21_has_group_normalization(tmp_path: Path) -> None:
    unet = UnetModule(tiny_models.TinyUNet())
    inputs = {"x": torch.randn(2, 3, 8, 8), "t": torch.tensor([3.0, 500.0])}
    graph = export_graph("unet", unet, inputs, ["epsilon"], opset=21)
    onnx_ir.save(graph.model, tmp_path / "unet.onnx")
    assert Counter(n.op_type for n in graph.model.graph)["GroupNormalization"] == 3
    (found,) = open_session(tmp_path / "unet.onnx", threads=1).run(None, {k: v.numpy() for k, v in inputs.items()})
    with torch.no_grad():
        np.testing.assert_allclose(found, unet(*inputs.values()).numpy(), rtol=0, atol=1e-5)


class Lambda(nn.Module):
    """A module of one expression."""

    def __init__(self, function: Callable[..., Any], **parameters: Tensor) -> None:
        super().__init__()
        self.function = function
        for name, value in parameters.items():
            self.register_buffer(name, value)

    def forward(self, x: Tensor, y: Tensor) -> Any:
        return self.function(x, y)


def _export(function: Callable[..., Any], outputs: int = 1) -> Any:
    same = torch.randn(3, 4, 5)
    names = [f"out{i}" for i in range(outputs)]
    return export_graph("toy", Lambda(function), {"x": same, "y": same}, names)


def test_the_same_tensor_twice_stays_two_inputs() -> None:
    graph = _export(lambda x, y: (x + y, x * y), outputs=2)
    assert [spec.name for spec in graph.inputs] == ["x", "y"]
    assert [(spec.name, spec.shape) for spec in graph.outputs] == [("out0", ("batch", 4, 5)), ("out1", ("batch", 4, 5))]


UNSUITABLE: list[tuple[Callable[..., Any], str]] = [
    (lambda x, y: x + torch.randn_like(y), "E-graph-random"),
    (lambda x, y: (x + y).sum(0), "E-graph-batch-axis"),
    (lambda x, y: (x + y).reshape(3, 20), "E-graph-trace"),
    (lambda x, y: (x + y).to(torch.float64), "E-graph-float32"),
    (lambda x, y: x if float(x.sum()) > 0 else y, "E-graph-trace"),
    (lambda x, y: 1 / 0, "E-graph-trace"),
]


@pytest.mark.parametrize(("function", "code"), UNSUITABLE)
def test_unsuitable_modules(function: Callable[..., Any], code: str) -> None:
    with raises_code(code) as caught:
        _export(function)
    assert "\n" not in str(caught.value)


def test_a_batch_of_one_is_refused() -> None:
    with raises_code("E-graph-example"):
        export_graph("toy", Lambda(lambda x, y: x), {"x": torch.ones(1, 2), "y": torch.ones(2, 2)}, ["out"])


def test_zeros_around_a_max_pool_stay_zeros(tmp_path: Path) -> None:
    """ONNX Runtime takes a Pad of any value into a MaxPool, which pads with -inf."""
    module = nn.Sequential(nn.ConstantPad2d(1, 0.0), nn.MaxPool2d(3, 2), nn.ZeroPad2d(1), nn.MaxPool2d(2))
    image = torch.rand((2, 3, 8, 8)) - 2.0
    onnx_ir.save(export_graph("pool", module, {"image": image}, ["out"]).model, tmp_path / "pool.onnx")
    check_file(tmp_path / "pool.onnx")
    found = open_session(tmp_path / "pool.onnx", threads=1).run(None, {"image": image.numpy()})[0]
    np.testing.assert_array_equal(found, module(image).numpy())


def test_training_flags_come_back(tmp_path: Path) -> None:
    module = Lambda(lambda x, y: x + y)
    module.inner = nn.Dropout()
    module.train()
    module.inner.eval()
    export_graph("toy", module, {"x": torch.ones(2, 2), "y": torch.ones(2, 2)}, ["out"])
    assert module.training
    assert not module.inner.training


def test_check_file_says_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(b"not onnx")
    with raises_code("E-graph-invalid"):
        check_file(path)
