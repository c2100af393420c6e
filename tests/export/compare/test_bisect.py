"""The first layer that diverges."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from changed_bundles import perturb

from edgepure.bundle.bundle import Bundle
from edgepure.bundle.edit import edit_bundle
from edgepure.parity.verify import verify
from edgepure_export.compare.bisect import bisect_graphs, first_divergence
from edgepure_export.compare.causes import usual_causes
from edgepure_export.compare.failing_graphs import find_layers
from edgepure_export.compare.onnx_probe import PER_SESSION, OnnxProbe
from edgepure_export.graphs.precision import load_graph, to_half


@pytest.mark.parametrize(
    ("used", "first"),
    [
        ([], None),
        ([0.001, 0.002, 0.9], None),
        ([0.001, 50.0, 60.0], 1),
        ([0.001, 0.8, 1.2, 3.0], 1),  # it crosses at 2, but the jump was at 1
        ([0.3, 0.5, 0.8, 1.1], 0),  # from the very first layer on, and no jump behind it
        ([0.01, float("nan"), 5.0], 1),
        ([0.01, 0.02, float("inf")], 2),
    ],
)
def test_the_culprit_is_where_the_error_jumps(used: list[float], first: int | None) -> None:
    assert first_divergence(used) == first


def test_two_graphs_node_by_node(tiny_bundle: Path, own_bundle: Path) -> None:
    perturb(own_bundle, "unet", "unet.conv1.weight", 0.05)
    feeds = Bundle.open(tiny_bundle).selftest().graphs["unet"].inputs
    good, bad = OnnxProbe(tiny_bundle / "unet.onnx", threads=1), OnnxProbe(own_bundle / "unet.onnx", threads=1)
    same = bisect_graphs("unet", good, good, feeds, precision="fp32", against="itself")
    assert not same and same.layer is None and "none of" in str(same)
    assert len(same.layers) == len(good.nodes) > PER_SESSION / 2
    assert max(layer.max_abs for layer in same.layers) == 0.0
    found = bisect_graphs("unet", bad, good, feeds, precision="fp32", against="the good graph")
    assert found.layer is not None and found.layer.module == "unet.conv1"
    assert found.to_json()["module"] == "unet.conv1"


def test_the_probe_runs_on_the_engine_that_is_deployed(tiny_bundle: Path) -> None:
    feeds = Bundle.open(tiny_bundle).selftest().graphs["unet"].inputs
    on_cpu, on_openvino = (OnnxProbe(tiny_bundle / "unet.onnx", name, threads=1) for name in ("cpu", "openvino"))
    found = bisect_graphs(
        "unet", on_openvino, on_cpu, feeds, precision="fp32", against="the fp32 graph on cpu", provider="openvino"
    )
    assert not found and len(found.layers) == len(on_cpu.nodes)
    assert 0.0 < max(layer.max_abs for layer in found.layers) < 1e-3, "two engines round differently"


def test_looking_inside_leaves_the_bundle_alone(tiny_bundle: Path) -> None:
    before = {p.name: p.stat().st_mtime_ns for p in tiny_bundle.iterdir()}
    probe = OnnxProbe(tiny_bundle / "unet.onnx", threads=1)
    feeds = Bundle.open(tiny_bundle).selftest().graphs["unet"].inputs
    chosen = [node.output for node in probe.nodes][:3]
    values = probe.outputs(chosen, feeds)
    assert list(values) == chosen
    assert all(np.isfinite(value).all() for value in values.values())
    assert {p.name: p.stat().st_mtime_ns for p in tiny_bundle.iterdir()} == before


@pytest.mark.parametrize(
    ("operator", "precision", "provider", "word"),
    [
        ("Resize", "fp32", "cpu", "resize mode"),
        ("InstanceNormalization", "fp16", "cuda", "normalisation in 16 bits"),
        ("Conv", "int8", "cpu", "outliers"),
        ("Conv", "fp32", "cuda", "TF32"),
        ("Conv", "fp32", "cpu", "other weights"),
        ("Conv", "fp32", "openvino", "other weights"),  # it computes on the CPU: no TF32
        ("Sin", "bf16", "tensorrt", "sines"),
        ("Softmax", "fp16", "cuda", "attention logits"),
        ("Gather", "fp32", "cpu", "opset"),
    ],
)
def test_usual_causes(operator: str, precision: str, provider: str, word: str) -> None:
    causes = usual_causes(operator, "unet.x", precision, provider, against_torch=True, before_weights=False)
    assert word in causes[0]
    early = usual_causes("Sub", "classifier", "fp32", "cpu", against_torch=True, before_weights=True)
    assert "preprocessing" in early[0]


def test_a_broken_variant_is_compared_with_the_fp32_graph(own_bundle: Path, tmp_path: Path) -> None:
    original = Bundle.open(own_bundle).manifest.graphs["unet"]
    model = load_graph(own_bundle / "unet.onnx")
    to_half(model, "fp16")
    ir.external_data.load_to_model(model)
    for value in model.graph.initializers.values():
        if str(value.name).startswith("unet.conv1.weight"):
            assert value.const_value is not None
            value.const_value = ir.tensor(value.const_value.numpy() + np.float16(0.5), name=value.name)
    ir.save(model, tmp_path / "half.onnx")
    with edit_bundle(own_bundle) as edit:
        edit.add("fp16.unet.onnx", tmp_path / "half.onnx")
        entry = original.model_copy(update={"file": "fp16.unet.onnx", "precision": "fp16"})
        edit.manifest = edit.manifest.model_copy(update={"variants": {"fp16": {"unet": entry}}})
    found = verify(own_bundle, precision="fp16", threads=1, pipelines=False)
    assert [check.subject for check in found.checks if not check] == ["graph unet"]
    (finding,) = find_layers(Bundle.open(own_bundle), found, threads=1)
    assert finding.layer is not None and finding.layer.module == "unet.conv1"
    assert finding.reference == "the fp32 graph on cpu"
    assert "--keep unet.conv1" in finding.causes[0]
    assert find_layers(Bundle.open(own_bundle), verify(own_bundle, threads=1, pipelines=False)) == ()
