"""Bundles whose files have more than one link: those that a change of them leaves, and those of installers."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

from edgepure.demo import demo_bundle
from edgepure_export import load_twin
from edgepure_export.graphs import WeightsPool
from edgepure_export.graphs.linked import embedded
from edgepure_export.graphs.precision import load_graph


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    bundle = tmp_path / "bundle"
    shutil.copytree(demo_bundle(), bundle)
    for file in [path for path in bundle.rglob("*") if path.is_file()]:
        os.link(file, tmp_path / f"kept-{file.name}")
    return bundle


def test_a_twin_is_the_same(linked: Path) -> None:
    x = torch.rand(2, 1, 16, 16)
    assert torch.equal(load_twin(linked).logits(x), load_twin(demo_bundle()).logits(x))


@pytest.mark.parametrize("graph", ["step", "mask"])
def test_a_graph_that_is_read_and_written_again(graph: str, linked: Path, tmp_path: Path) -> None:
    found, right = (load_graph(bundle / f"{graph}.onnx") for bundle in (linked, demo_bundle()))
    (tmp_path / "new").mkdir()
    with WeightsPool(tmp_path / "new") as pool:
        written = pool.save(found, "new.onnx")
    weights = {str(v.name): v.const_value for v in ir.load(written).graph.initializers.values()}
    assert set(weights) == set(right.graph.initializers)
    for name, value in right.graph.initializers.items():
        assert value.const_value is not None and weights[name] is not None
        np.testing.assert_array_equal(weights[name].numpy(), value.const_value.numpy())


def test_what_lies_elsewhere_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(16))
    (tmp_path / "folder").mkdir()
    tensor = onnx.TensorProto(name="w", data_type=1, dims=[4], data_location=onnx.TensorProto.EXTERNAL)
    entry = tensor.external_data.add(key="location", value="../secret")
    with pytest.raises(ValueError, match="leads out"):
        embedded(tensor, tmp_path / "folder")
    (tmp_path / "folder" / "link").symlink_to(tmp_path / "secret")
    entry.value = "link"
    with pytest.raises(ValueError, match="leads out"):
        embedded(tensor, tmp_path / "folder")
    entry.value = "secret"
    tensor.external_data.add(key="length", value="99")
    with pytest.raises(ValueError, match="ends inside"):
        embedded(tensor, tmp_path)
