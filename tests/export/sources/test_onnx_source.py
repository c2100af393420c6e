"""A classifier from an ONNX file: the same logits as ONNX Runtime gives, and the graph's own demands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import tiny_models
import torch
from codes import raises_code
from onnx import TensorProto, helper
from torch import Tensor, nn

from edgepure_export.graphs.to_onnx import export_graph
from edgepure_export.graphs.weights_pool import WeightsPool
from edgepure_export.sources.resolve import resolve_classifier


class TwoOutputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.network = tiny_models.TinyClassifier()

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        features = self.network.stem(image)
        return features.mean((2, 3)), self.network(image)


def write(folder: Path, module: nn.Module, outputs: list[str]) -> Path:
    graph = export_graph("net", module.eval(), {"image": tiny_models.images(2)}, outputs)
    with WeightsPool(folder) as pool:
        pool.save(graph.model, "net.onnx")
    return folder / "net.onnx"


def test_the_same_logits_as_onnx_runtime(tmp_path: Path) -> None:
    file = write(tmp_path, tiny_models.TinyClassifier(), ["logits"])
    session = ort.InferenceSession(file, providers=["CPUExecutionProvider"])
    x = tiny_models.images(3)
    plain = resolve_classifier(f"onnx:{file}")
    np.testing.assert_allclose(plain.model(x).numpy(), session.run(None, {"image": x.numpy()})[0], atol=1e-5)
    assert plain.origin.startswith("onnx:net.onnx (sha256 ")
    text = f"onnx:{file}?mean=0.4,0.5,0.6&std=0.2,0.3,0.4&order=bgr"
    mean, std = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.3, 0.4])
    seen = ((x.flip(1) - mean[:, None, None]) / std[:, None, None]).numpy()
    np.testing.assert_allclose(
        resolve_classifier(text).model(x).numpy(), session.run(None, {"image": seen})[0], atol=1e-5
    )
    assert resolve_classifier(f"onnx:{file}", image_size=(16, 12)).model(torch.rand(2, 3, 16, 12)).shape == (2, 5)


def test_a_graph_with_several_outputs(tmp_path: Path) -> None:
    file = write(tmp_path, TwoOutputs(), ["features", "logits"])
    with raises_code("E-source-onnx-output"):
        resolve_classifier(f"onnx:{file}")
    x = tiny_models.images(2)
    found = resolve_classifier(f"onnx:{file}?output=logits").model(x)
    torch.testing.assert_close(found, tiny_models.TinyClassifier()(x), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ("?size=32", "E-source-onnx-size"),
        ("?mean=0.5&std=1,2", "E-source-mean-std"),
        ("?order=gbr", "E-source-option-choice"),
        ("?layout=nhwc", "E-source-onnx-channels"),
    ],
)
def test_what_does_not_fit_the_graph(options: str, code: str, tmp_path: Path) -> None:
    file = write(tmp_path, tiny_models.TinyClassifier(), ["logits"])
    with raises_code(code):
        resolve_classifier(f"onnx:{file}{options}")


@pytest.mark.parametrize("rows", [-1, 1])
def test_a_graph_that_was_written_for_one_image(rows: int, tmp_path: Path) -> None:
    """It is taken where its operators let two images through, and refused where a Reshape says one."""
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", [1, 3, 2, 2]), ("y", [1, 12]))]
    shape = helper.make_tensor("shape", TensorProto.INT64, [2], [rows, 12])
    node = helper.make_node("Reshape", ["x", "shape"], ["y"])
    graph = helper.make_graph([node], "one", values[:1], values[1:], [shape])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "one.onnx")
    if rows == -1:
        assert resolve_classifier(f"onnx:{tmp_path}/one.onnx").model(torch.rand(3, 3, 2, 2)).shape == (3, 12)
    else:
        with raises_code("E-source-onnx-batch"):
            resolve_classifier(f"onnx:{tmp_path}/one.onnx")


def test_no_graph(tmp_path: Path) -> None:
    with raises_code("E-source-file-missing"):
        resolve_classifier(f"onnx:{tmp_path}/none.onnx")
    (tmp_path / "page.onnx").write_text("<html>")
    with raises_code("E-source-onnx-file"):
        resolve_classifier(f"onnx:{tmp_path}/page.onnx")
