"""A self-test has to fail when it should."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from cli_process import run
from codes import raises_code
from tiny_bundle import FIXED_MAP, PRESETS, rehash, selftest_arrays

from edgepure.bundle.bundle import Bundle
from edgepure.cli.output import _finite
from edgepure.files.atomic import write_npz
from edgepure.parity.checks import OutputCheck
from edgepure.parity.verification import Verification
from edgepure.parity.verify import verify


def record(bundle: Path, **changes: np.ndarray) -> None:
    """Record other vectors (keys with __ for /), and hash the files anew as one who means harm could."""
    arrays: dict[str, Any] = selftest_arrays()
    for key, value in changes.items():
        arrays[key.replace("__", "/")] = value
    write_npz(bundle / "selftest.npz", arrays)
    rehash(bundle)


def failing(found: Verification) -> set[tuple[str, str]]:
    return {(check.subject, check.quantity) for check in found.checks if not check}


def test_a_good_bundle_passes(tiny_bundle: Path) -> None:
    shares: list[float] = []
    found = verify(tiny_bundle, threads=1, on_progress=lambda subject, share: shares.append(share))
    assert found and failing(found) == set()
    assert "all 17 comparisons pass" in str(found)
    assert found.unrecorded == ("adaptive",)
    assert [level.status for level in found.levels] == ["passed"] * 4
    assert "preset adaptive has no recorded purification" in found.levels[2].missing[0]
    assert shares == sorted(shares) and len(shares) == 7
    report = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert report["ok"] is True
    rows = report["levels"][1]["comparisons"][0]
    assert rows["preset"] == "heterogeneous" and [row["row"] for row in rows["rows"]] == list(range(6))
    assert max(check.used for check in found.checks) < 0.1
    assert not found.levels[3].parts[0].to_json()["interval"][1] < 0.8  # two images prove little, and it says so


def test_graphs_alone(tiny_bundle: Path) -> None:
    found = verify(Bundle.open(tiny_bundle), threads=1, pipelines=False)
    assert found and all(check.subject.startswith("graph ") for check in found.checks)
    assert found.unrecorded == ()
    assert [level.status for level in found.levels] == ["passed", "not run", "not run", "not run"]
    assert "rows not run" in str(found)


def test_a_bundle_without_states_says_so(own_bundle: Path) -> None:
    arrays = {k: v for k, v in selftest_arrays().items() if k.rpartition("/")[2] not in ("rows", "states")}
    write_npz(own_bundle / "selftest.npz", arrays)
    rehash(own_bundle)
    found = verify(own_bundle, threads=1)
    assert found and not found.levels[1]
    assert found.levels[1].status == "not recorded" and "no recorded states" in found.levels[1].missing[0]
    assert "rows not recorded" in str(found)


def test_other_weights_with_the_right_hash_fail(own_bundle: Path) -> None:
    (own_bundle / "weights.bin").write_bytes((FIXED_MAP + np.float32(2.0)).tobytes())
    rehash(own_bundle)
    found = verify(own_bundle, threads=1)
    assert not found
    assert {("graph unet", "epsilon"), ("graph step", "x_next"), ("pipeline uniform", "purified")} <= failing(found)
    assert ("rows heterogeneous", "state after row 0") in failing(found)
    assert not any(subject in ("graph classifier", "graph mask") for subject, _ in failing(found))
    assert "comparisons fail" in str(found)


@pytest.mark.parametrize(("factor", "passes"), [(0.5, True), (1.5, False)])
def test_the_tolerance_is_where_it_is_said_to_be(factor: float, passes: bool, own_bundle: Path) -> None:
    epsilon = selftest_arrays()["unet/out/epsilon"]
    moved = epsilon.copy()
    moved[1, 0, 2, 3] += np.float32(factor * 2e-4 * max(1.0, float(np.abs(epsilon).max())))
    record(own_bundle, unet__out__epsilon=moved)
    assert bool(verify(own_bundle, threads=1, pipelines=False)) is passes


@pytest.mark.parametrize(("margin", "passes"), [(1e-3, True), (0.1, False)], ids=["tied", "not tied"])
def test_a_label_that_flips_fails_unless_the_logits_are_tied(margin: float, passes: bool, own_bundle: Path) -> None:
    logits = selftest_arrays()["pipeline/uniform/logits"]
    other = np.arange(2) != logits.argmax(axis=1)[:, None]
    flipped = np.where(other, logits.max(axis=1, keepdims=True) + np.float32(margin), logits)
    record(own_bundle, pipeline__uniform__logits=flipped.astype(np.float32))
    found = verify(own_bundle, threads=1)
    assert ("pipeline uniform", "logits") in failing(found)
    assert (("decisions uniform (self-test)", "flips shown") not in failing(found)) is passes


def test_masks_may_differ_in_few_pixels_only(own_bundle: Path) -> None:
    mask = selftest_arrays()["pipeline/heterogeneous/mask"]
    for pixels, passes in ((6, True), (7, False)):  # of 512: more than 0.5 % are proven from seven on
        other = mask.copy()
        other[0, 0, 0, :pixels] = 1.0 - other[0, 0, 0, :pixels]
        record(own_bundle, pipeline__heterogeneous__mask=other)
        found = verify(own_bundle, threads=1)
        assert (("pipeline heterogeneous", "mask") not in failing(found)) is passes
        (check,) = [c for c in found.levels[2].checks if c.quantity == "mask"]
        assert check.pixels == pixels and check.iou is not None and 0.9 < check.iou < 1.0


def test_damage_is_found_before_anything_runs(own_bundle: Path) -> None:
    opened = Bundle.open(own_bundle)
    os.truncate(own_bundle / "weights.bin", 1000)
    with raises_code("E-bundle-cut-off"):
        verify(opened, threads=1)
    with raises_code("E-provider-unknown"):
        verify(_whole(own_bundle), "gpu")


def _whole(bundle: Path) -> Path:
    (bundle / "weights.bin").write_bytes(FIXED_MAP.tobytes())
    return bundle


@pytest.mark.parametrize(
    "change", [{"t_l": 58}, {"U": 4}, {"eta": 0.5}, {"t_s": 33}], ids=lambda change: next(iter(change))
)
def test_altered_coefficients_fail_from_the_row_on_where_they_act(change: dict[str, Any], own_bundle: Path) -> None:
    preset = PRESETS["heterogeneous"]
    rehash(own_bundle, presets={**PRESETS, "heterogeneous": {**preset, "method": {**preset["method"], **change}}})
    found = verify(own_bundle, threads=1)
    assert found.levels[0] and not found.levels[1] and not found.levels[2]
    assert {subject for subject, _ in failing(found)} <= {
        "rows heterogeneous", "pipeline heterogeneous", "decisions heterogeneous (self-test)"
    }  # fmt: skip


def test_fewer_rows_than_recorded_is_a_failure(own_bundle: Path) -> None:
    preset = PRESETS["heterogeneous"]
    rehash(
        own_bundle, presets={**PRESETS, "heterogeneous": {**preset, "method": {**preset["method"], "stage2_steps": 1}}}
    )
    found = verify(own_bundle, threads=1)
    assert "row 5 was recorded, but the preset has 5 rows" in str(found.levels[1])


def sliced(path: Path, output: str) -> None:
    """Make a graph give one column less than its manifest says."""
    model = onnx.load(path, load_external_data=False)
    model.graph.node[-1].output[0] = "whole"
    for name, value in (("from", 0), ("to", -1), ("axis", 3)):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([value]), name))
    model.graph.node.append(onnx.helper.make_node("Slice", ["whole", "from", "to", "axis"], [output]))
    del model.graph.output[0].type.tensor_type.shape.dim[3]
    model.graph.output[0].type.tensor_type.shape.dim.add().dim_value = 15
    path.write_bytes(model.SerializeToString())


@pytest.mark.parametrize(("graph", "output"), [("step", "x_next"), ("unet", "epsilon")])
def test_a_wrong_shape_is_a_failure_and_no_crash(graph: str, output: str, own_bundle: Path) -> None:
    sliced(own_bundle / f"{graph}.onnx", output)
    rehash(own_bundle)
    found = verify(own_bundle, threads=1)
    assert not found
    assert "the engine gives the shape [2, 1, 16, 15], expected [2, 1, 16, 16]" in str(found)
    assert [level.status for level in found.levels] == ["failed", "not run", "not run", "not run"]
    assert "wrong shape" in found.levels[3].missing[0]


def test_nan_is_a_failure_and_no_crash(own_bundle: Path) -> None:
    broken = FIXED_MAP.copy()
    broken[0, 0, 3, 4] = np.nan
    (own_bundle / "weights.bin").write_bytes(broken.tobytes())
    rehash(own_bundle)
    found = verify(own_bundle, threads=1)
    assert [level.status for level in found.levels] == ["failed", "not run", "failed", "not run"]
    assert "NaN" in str(found.levels[2])
    json.loads(json.dumps(_finite(found.to_json()), allow_nan=False))


def test_nothing_compared_is_no_success_and_nan_is_a_failure() -> None:
    assert not Verification("empty", "cpu", 0, 0, ())
    assert not OutputCheck("graph step", "x_next", float("nan"), 0.0, 1.0)
    assert not OutputCheck("graph step", "x_next", 0.0, 0.0, 1.0, relative_l2=float("nan"), relative_tolerance=1.0)
    assert not OutputCheck("graph step", "x_next", 0.0, 0.0, 1.0, problem="nothing came back")
    assert OutputCheck("pipeline uniform", "mask", 0.0, 0.0, 0.0)


def test_the_command_exits_with_6_and_says_what_failed(own_bundle: Path) -> None:
    (own_bundle / "weights.bin").write_bytes((FIXED_MAP + np.float32(2.0)).tobytes())
    rehash(own_bundle)
    done = run("verify", own_bundle)
    done.fails(6, "comparisons fail", "do not use this bundle")
    assert "FAILED" in done.stdout and "ok" in done.stdout
    found = run("verify", own_bundle, "--json")
    assert found.code == 6 and found.json["ok"] is False


def test_a_bundle_that_somebody_weakened_verifies_but_has_another_content_hash(own_bundle: Path) -> None:
    meant = Bundle.open(own_bundle).content_hash
    assert run("verify", own_bundle, "--graphs-only", "--content-hash", meant.upper()).code == 0
    manifest = json.loads((own_bundle / "bundle.json").read_text())
    manifest["default_preset"] = "heterogeneous"
    (own_bundle / "bundle.json").write_text(json.dumps(manifest))
    assert run("verify", own_bundle, "--graphs-only").code == 0
    run("verify", own_bundle, "--graphs-only", "--content-hash", meant).fails(3, "is not the bundle that was meant")
