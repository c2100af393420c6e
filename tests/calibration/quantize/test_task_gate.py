"""The gate of a bundle with a task: answers that agree in its own terms, and what is counted against the truth."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from codes import raises_code
from in_process import invoke, refused
from task_bundle import make_task_bundle
from tiny_bundle import images

import edgepure
from edgepure.bundle.bundle import Bundle
from edgepure.bundle.task import TASK_KINDS
from edgepure.images.dataset import LabelledImages
from edgepure.purify.purifier import Purifier
from edgepure_calibration.quantize.draft import Draft, DraftPurifier
from edgepure_calibration.quantize.gate import Decisions
from edgepure_calibration.quantize.verdict import Agreed, Limits, PresetGate
from edgepure_calibration.truth import Truth, load_data, load_truth
from edgepure_calibration.truth.metrics import lost
from edgepure_export.graphs.precision import load_graph
from edgepure_export.graphs.weights_pool import WeightsPool

COUNT, NOISES, LIMITS = 48, 2, Limits(flips=0.08, accuracy=0.08)


@pytest.fixture(scope="module", params=TASK_KINDS)
def fp32(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Purifier]:
    folder = make_task_bundle(tmp_path_factory.mktemp(request.param) / "bundle", request.param)
    with edgepure.load(folder, threads=1) as purifier:
        yield purifier


@pytest.fixture(scope="module")
def truth(fp32: Purifier, tmp_path_factory: pytest.TempPathFactory) -> Truth:
    """What the task says of the clean images, and for vectors four people."""
    place = tmp_path_factory.mktemp("data") / "data.npz"
    if fp32.bundle.manifest.require_task().kind == "embedding":
        np.savez(place, images=images(COUNT), labels=np.arange(COUNT) % 4)
    else:
        np.savez(place, images=images(COUNT))
    return load_truth(place, fp32)


@pytest.fixture(scope="module")
def decisions(fp32: Purifier, truth: Truth) -> Decisions:
    unlabelled = LabelledImages(truth.images[::-1].copy(), None, tuple(map(str, range(COUNT))))
    data: Any = {"clean": truth, "attacked": unlabelled}
    presets = {name: fp32.preset(name) for name in ("uniform", "heterogeneous", "given")}
    return Decisions(fp32, data, presets, NOISES, 4, LIMITS)


def changed(bundle: Bundle, folder: Path, factor: float) -> Draft:
    """The fp32 step graph with the weights of its convolution multiplied."""
    model = load_graph(bundle.graph_path("step"))
    weight = next(node for node in model.graph if node.op_type == "Conv").inputs[1]
    assert weight is not None and weight.const_value is not None
    weight.const_value = ir.tensor(np.float32(factor) * weight.const_value.numpy(), name=weight.name)
    with WeightsPool(folder) as pool:
        files: Any = {"step": pool.save(model, "step.onnx")}
    return Draft("int8", "cpu", (), files, files, {})


def judged(decisions: Decisions, fp32: Purifier, draft: Draft) -> PresetGate:
    with DraftPurifier(fp32.bundle, draft, threads=1) as purifier:
        return decisions.compare(purifier, "uniform")


def test_the_same_network_passes_and_loses_nothing(decisions: Decisions, fp32: Purifier) -> None:
    for preset in ("uniform", "heterogeneous", "given"):  # the last one takes the mask of a caller
        gate = decisions.compare(fp32, preset)
        assert gate.passed, gate.reasons
        for part in ("clean", "attacked"):
            agreed = gate.flips[part]
            assert isinstance(agreed, Agreed)
            assert (agreed.answers, agreed.images) == (COUNT * NOISES, COUNT)
            assert agreed.agreement == pytest.approx(1.0, abs=1e-6) and agreed.redrawn > 1e-6
            assert (agreed.metric is None) == (part == "attacked")
        clean = gate.flips["clean"]
        assert isinstance(clean, Agreed)
        assert clean.value == clean.value_fp32 and clean.loss_high == pytest.approx(1.0 - 0.05 ** (1.0 / COUNT))
        json.dumps(gate.to_dict(), allow_nan=False)


def test_a_wrecked_network_is_stopped_in_the_tasks_terms(decisions: Decisions, fp32: Purifier, tmp_path: Path) -> None:
    gate = judged(decisions, fp32, changed(fp32.bundle, tmp_path, 2000.0))
    term = {"segmentation": "mIoU", "detection": "box agreement", "embedding": "cosine"}
    kind = fp32.bundle.manifest.require_task().kind
    failed = {check.name for check in gate.checks if not check.passed}
    assert f"1 - {term[kind]}, clean" in failed, gate.checks
    if kind != "embedding":
        assert f"{'mIoU' if kind == 'segmentation' else 'mAP at 0.5'}, clean" in failed


def test_what_fp32_answered_is_taken_over(decisions: Decisions, fp32: Purifier, truth: Truth) -> None:
    decisions.of_fp32("uniform")
    known = {name: array.copy() for name, array in decisions.known().items()}
    again = Decisions(fp32, {"clean": truth}, {"uniform": fp32.preset("uniform")}, NOISES, 4, LIMITS)
    again.remember({name: np.roll(array, 1, axis=0) for name, array in known.items()})
    agreed = again.compare(fp32, "uniform").flips["clean"]
    assert isinstance(agreed, Agreed) and agreed.agreement < 0.999, "they are those of other images"


def test_the_loss_of_a_metric_is_bounded_over_images() -> None:
    right = np.ones(200)
    worse = right.copy()
    worse[:20] = 0.0
    before, after, high = lost(*([lambda w, v=v: float(w @ v / w.sum())] for v in (right, worse)), 200)  # type: ignore[misc]
    assert (before, after) == (1.0, 0.9)
    assert 0.11 < high < 0.16  # 0.1 + 1.64 * sqrt(0.1 * 0.9 / 200) = 0.135
    assert lost([lambda w: 0.5], [lambda w: 0.5], 10)[2] == pytest.approx(1.0 - 0.05 ** (1.0 / 10.0))


def test_quantize_gates_on_the_task(fp32: Purifier, truth: Truth, tmp_path: Path) -> None:
    data, arrays = tmp_path / "data.npz", {"images": truth.images, "labels": truth.labels}
    np.savez(data, **arrays if truth.boxes is None else arrays | {"boxes": truth.boxes})
    found = load_data(data, fp32.bundle.manifest)
    assert isinstance(found, Truth)
    common = ("quantize", fp32.bundle.path, "--precision", "fp16", "--for", "tensorrt", "--data", data, "--redraws", 2,
              "--threads", 1)  # fmt: skip
    assert refused(*common) == "E-quantize-images"
    done = invoke(*common, "--max-flips", "0.1", "--max-loss", "0.1", "--report", tmp_path / "page.html", "--json")
    assert done.exit_code == 0, done.output
    (gate,) = json.loads(done.stdout)["attempts"][-1]["gates"]
    assert gate["flips"]["clean"]["agreement"] > 0.97 and gate["flips"]["clean"]["loss_high"] <= 0.1
    assert gate["flips"]["clean"]["metric"] in (tmp_path / "page.html").read_text()
    with edgepure.load(fp32.bundle.path, verify=True) as purifier:
        assert "fp16" in purifier.bundle.manifest.variants


def test_a_truth_is_not_resized(fp32: Purifier, truth: Truth, tmp_path: Path) -> None:
    arrays = {"images": truth.images, "labels": truth.labels}
    np.savez(tmp_path / "data.npz", **arrays if truth.boxes is None else arrays | {"boxes": truth.boxes})
    with raises_code("E-task-data"):
        load_data(tmp_path / "data.npz", fp32.bundle.manifest, resize=True)
