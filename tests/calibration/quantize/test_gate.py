"""The gate lets through what changes nothing, and stops what does harm, for the right reason."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from codes import raises_code

from edgepure.bundle.bundle import Bundle
from edgepure.engines import open_graph
from edgepure.images.dataset import LabelledImages
from edgepure.purify.purifier import Purifier
from edgepure_calibration.quantize.draft import Draft, DraftPurifier, build
from edgepure_calibration.quantize.gate import Decisions
from edgepure_calibration.quantize.labels import decision_checks
from edgepure_calibration.quantize.sensitivity import measure_sensitivity, output_error
from edgepure_calibration.quantize.verdict import Limits, PresetGate
from edgepure_export.graphs.precision import load_graph
from edgepure_export.graphs.weights_pool import WeightsPool

REDRAWS, LIMITS = 3, Limits(flips=0.08, accuracy=0.08)


@pytest.fixture(scope="module")
def decisions(fp32: Purifier, clean: LabelledImages, attacked: LabelledImages) -> Decisions:
    presets = {name: fp32.preset(name) for name in ("uniform", "uniform-ssni")}
    return Decisions(fp32, {"clean": clean, "attacked": attacked}, presets, REDRAWS, 4, LIMITS)


def judged(decisions: Decisions, digits: Bundle, candidate: Draft, preset: str = "uniform") -> PresetGate:
    with DraftPurifier(digits, candidate, threads=1) as purifier:
        return decisions.compare(purifier, preset)


def changed(digits: Bundle, folder: Path, factor: float) -> Draft:
    """The fp32 step graph with one weight tensor multiplied."""
    model = load_graph(digits.graph_path("step"))
    node = next(n for n in model.graph if n.name == "unet.middle1.conv1/Conv_0")
    weight = node.inputs[1]
    assert weight is not None and weight.const_value is not None
    weight.const_value = ir.tensor(np.float32(factor) * weight.const_value.numpy(), name=weight.name)
    with WeightsPool(folder) as pool:
        files: Any = {"step": pool.save(model, "step.onnx")}
    return Draft("int8", "cpu", (), files, files, {})


def test_the_same_network_passes_and_flips_nothing(decisions: Decisions, fp32: Purifier) -> None:
    gate = decisions.compare(fp32, "uniform")
    assert gate.passed and not gate.reasons
    for part in ("clean", "attacked"):
        flips = gate.flips[part]
        assert (flips.decisions, flips.flipped) == (64 * REDRAWS, 0)
        assert 0.0 < flips.high < 0.05  # no event on 64 images, however many noises each was judged with
        assert flips.accuracy == flips.accuracy_fp32
    assert sum(f.redrawn for f in gate.flips.values()) > 0  # new noise flips some: the comparison means something
    assert max(gate.drift) == 0.0 < min(gate.redraw_drift)


def test_int8_passes(decisions: Decisions, digits: Bundle, measured: Any, tmp_path: Path) -> None:
    candidate = build(digits, "int8", "cpu", tmp_path / "int8", measured.ranges["int8", "cpu"])
    gate = judged(decisions, digits, candidate)
    assert gate.passed, gate.reasons
    assert 0.0 < gate.drift[-1] < 0.2 * gate.redraw_drift[-1]


def test_a_wrecked_network_is_stopped_by_every_check(decisions: Decisions, digits: Bundle, tmp_path: Path) -> None:
    gate = judged(decisions, digits, changed(digits, tmp_path, -30.0))
    assert not gate.passed
    strict = decision_checks(gate.flips, Limits(flips=0.05, accuracy=0.05))  # 64 images can show 4.6 % at best
    failed = {check.name for check in (*gate.checks, *strict) if not check.passed}
    assert failed == {"flips, clean", "flips, attacked", "accuracy, clean", "accuracy, attacked", "drift"}
    assert any("flips" in reason and "preset uniform" in reason for reason in gate.reasons)


def test_a_wrecked_network_is_stopped_with_ssni(decisions: Decisions, digits: Bundle, tmp_path: Path) -> None:
    assert not judged(decisions, digits, changed(digits, tmp_path, -30.0), "uniform-ssni").passed


def test_values_that_are_not_finite_fail_with_preset_and_row(
    decisions: Decisions, digits: Bundle, tmp_path: Path
) -> None:
    gate = judged(decisions, digits, changed(digits, tmp_path, np.inf))
    assert not gate.passed
    assert "preset uniform" in gate.failure and "NaN or infinite" in gate.failure
    assert "first after row 0" in gate.failure


def test_too_few_images_to_show_anything_are_refused(fp32: Purifier, clean: LabelledImages) -> None:
    few = clean.pick(range(20))
    presets = {"uniform": fp32.preset("uniform")}
    for redraws in (5, 500):  # more noises are no more images
        with raises_code("E-quantize-images") as caught:
            Decisions(fp32, {"clean": few}, presets, redraws, 0, Limits())
        assert "20 clean images" in str(caught.value) and "that takes 299," in str(caught.value)
        allowed = re.search(r"--max-flips (\S+) --max-loss ([\d.]+)", str(caught.value))
        assert allowed is not None
        flips, loss = map(float, allowed.groups())
        Decisions(fp32, {"clean": few}, presets, redraws, 0, Limits(flips=flips, accuracy=loss))
    with raises_code("E-quantize-decisions"):
        Decisions(fp32, {"clean": few}, presets, 1, 0, Limits(flips=0.5, accuracy=0.5))


def test_the_fewest_images_follow_from_the_strictest_limit_that_is_judged() -> None:
    assert Limits().images_needed() == 299
    assert Limits(flips=0.08, accuracy=0.01).images_needed() == 299
    assert Limits(flips=0.08, accuracy=0.01).images_needed(labelled=False) == 36
    assert Limits(flips=0.01, accuracy=0.08).images_needed() == 299


def test_fp32_decides_once(fp32: Purifier, clean: LabelledImages) -> None:
    """What an interrupted run stored is taken over, not measured again."""
    some = {"clean": clean}
    first = Decisions(fp32, some, {"uniform": fp32.preset("uniform")}, REDRAWS, 4, LIMITS)
    first.of_fp32("uniform")
    stored = first.known()
    stored["uniform/clean/labels"][0, 0] = 99  # a label that no network gives
    second = Decisions(fp32, some, {"uniform": fp32.preset("uniform")}, REDRAWS, 4, LIMITS)
    second.remember(stored)
    assert second.compare(fp32, "uniform").flips["clean"].flipped == 1


def test_sensitivity_finds_the_layer_with_the_useless_range(digits: Bundle, measured: Any, tmp_path: Path) -> None:
    bad = "unet.middle2.conv2/Conv_0"
    ranges = {**measured.ranges["int8", "cpu"], (bad, "input"): (-1e4, 1e4)}
    seen: list[str] = []
    found = measure_sensitivity(
        digits,
        "step",
        "int8",
        "cpu",
        ranges,
        measured.samples,
        tmp_path / "layer",
        {"unet.time1/Gemm_0": 0.5},
        1,
        lambda name, error, share: seen.append(name),
    )
    assert found["unet.time1/Gemm_0"] == 0.5 and "unet.time1/Gemm_0" not in seen  # known from before
    others = {name: error for name, error in found.items() if name != "unet.time1/Gemm_0"}
    assert max(others, key=lambda name: others[name]) == bad
    # keeping that layer repairs the whole
    broken = build(digits, "int8", "cpu", tmp_path / "a", ranges, (), ("step",))
    repaired = build(digits, "int8", "cpu", tmp_path / "b", ranges, (bad,), ("step",))
    errors = [output_error(open_graph(c.runnable["step"], threads=1), measured.samples) for c in (broken, repaired)]
    assert errors[1] < 0.6 * errors[0]
