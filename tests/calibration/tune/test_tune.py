"""A whole run: presets with evidence in the bundle, or the bundle as it was; interrupted runs go on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from codes import raises_code

from edgepure import Bundle, Preset
from edgepure.bundle.edit import edit_bundle
from edgepure.images.dataset import LabelledImages
from edgepure.parity.verify import verify
from edgepure_calibration.bundle_presets import put_presets
from edgepure_calibration.provider import ProviderSettings
from edgepure_calibration.tune import TuneSettings, Tuning, tune
from edgepure_calibration.tune.deployed import DeployedGraphs
from edgepure_calibration.tune.evidence import EVIDENCE_FILE, earlier_points
from edgepure_calibration.tune.space import PRESET_NAMES
from edgepure_calibration.tune.tune import REFERENCE_CALLS

#: What belongs to the settings.
ASKED = ("calls", "ms", "methods", "precisions", "references", "whitebox")
SETTINGS = TuneSettings(
    calls=5, whitebox=False, trials=6, images=16, final_images=20, finalists=3, seed=1, most_votes=3
)


def run(bundle: Path, data: LabelledImages, attacked: LabelledImages, **options: Any) -> Tuning:
    asked: dict[str, Any] = {name: options.pop(name) for name in ASKED if name in options}
    settings = replace(options.pop("settings", SETTINGS), **asked)
    provider = ProviderSettings(options.pop("provider", "cpu"), threads=1)
    return tune(bundle, data, settings, attacked=attacked, provider=provider, **options)


def test_presets_and_their_evidence_are_in_the_bundle(
    bundle: Path, data: LabelledImages, attacked: LabelledImages
) -> None:
    before = Bundle.open(bundle).manifest
    found = run(bundle, data, attacked)
    after = Bundle.open(bundle).manifest
    assert set(after.presets) == set(before.presets) | set(PRESET_NAMES)
    assert after.default_preset == before.default_preset
    evidence = json.loads((bundle / EVIDENCE_FILE).read_text())
    for name in PRESET_NAMES:
        chosen = evidence["chosen"][name]
        assert chosen["unet_calls"] <= 5
        assert chosen["clean"]["images"] == 20
        low, high = chosen["clean"]["interval95"]
        assert low <= chosen["clean"]["accuracy"] <= high
        assert chosen["whitebox"] is None
        assert f"UNet calls {chosen['unet_calls']}" in after.presets[name].description
        assert "transferred attack only" in after.presets[name].description
    assert len(evidence["trials"]) == 6
    assert set(evidence["references"]) == set(before.presets) - {"adaptive"}
    assert set(evidence["references not measured"]) == {"adaptive"}  # linear SSNI: no bound on the calls of an image
    assert evidence["protocols"]["images of the search"]["clean"] == 16
    assert {"date", "device", "provider"} <= set(evidence["facts"])
    assert found.unrecorded == PRESET_NAMES
    checked = verify(bundle, threads=1)
    assert checked
    assert set(PRESET_NAMES) <= set(checked.unrecorded)


def test_a_second_tuning_replaces_the_presets_and_their_records(
    bundle: Path, data: LabelledImages, attacked: LabelledImages
) -> None:
    """`fast` was there with recorded vectors; they would not fit the new one."""
    uniform = Bundle.open(bundle).manifest.presets["uniform"]
    old = Bundle.open(bundle).selftest().pipelines["uniform"]
    arrays = {"image": old.image, "purified": old.purified, "logits": old.logits}
    with edit_bundle(bundle) as edit:
        seed = np.array(old.seed, np.int64)
        put_presets(edit, {"fast": uniform}, {f"pipeline/fast/{k}": v for k, v in {**arrays, "seed": seed}.items()})
    assert verify(bundle, threads=1)
    assert "fast" in Bundle.open(bundle).selftest().pipelines
    found = run(bundle, data, attacked)
    assert found.chosen["fast"].candidate.preset.method != uniform.method
    assert "fast" not in Bundle.open(bundle).selftest().pipelines
    assert "uniform" in Bundle.open(bundle).selftest().pipelines
    assert "fast" not in found.references
    assert verify(bundle, threads=1)


def test_the_same_call_goes_on_and_gives_the_same(
    bundle: Path, data: LabelledImages, attacked: LabelledImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(bundle, data, attacked, write=False, work=tmp_path / "whole")
    score, calls = DeployedGraphs.score, 0

    def interrupted(self: DeployedGraphs, *arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls in (6, 13, 20):  # twice in the search, once among the finalists
            raise KeyboardInterrupt
        return score(self, *arguments)

    monkeypatch.setattr(DeployedGraphs, "score", interrupted)
    before = Bundle.open(bundle).content_hash
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            run(bundle, data, attacked, work=tmp_path / "parts")
        assert Bundle.open(bundle).content_hash == before
    again = run(bundle, data, attacked, write=False, work=tmp_path / "parts")
    assert [p.to_dict() for p in again.trials] == [p.to_dict() for p in whole.trials]
    assert {n: p.to_dict() for n, p in again.chosen.items()} == {n: p.to_dict() for n, p in whole.chosen.items()}
    spent = calls
    assert run(bundle, data, attacked, write=False, work=tmp_path / "parts").chosen == again.chosen
    assert calls == spent  # nothing was measured again


def test_more_trials_go_on_where_fewer_ended(
    bundle: Path, data: LabelledImages, attacked: LabelledImages, tmp_path: Path
) -> None:
    few = run(bundle, data, attacked, write=False, work=tmp_path / "s", settings=replace(SETTINGS, trials=2))
    more = run(bundle, data, attacked, write=False, work=tmp_path / "s", settings=replace(SETTINGS, trials=4))
    assert [p.candidate.key for p in more.trials[:2]] == [p.candidate.key for p in few.trials]
    assert len(more.trials) == 4


def test_trials_of_other_data_settings_or_budgets_are_not_taken_up(
    bundle: Path, data: LabelledImages, attacked: LabelledImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = replace(SETTINGS, trials=1, finalists=1, references=())
    run(bundle, data, attacked, write=False, work=tmp_path, settings=quick)
    score, scored = DeployedGraphs.score, 0

    def counted(self: DeployedGraphs, *arguments: Any) -> Any:
        nonlocal scored
        scored += 1
        return score(self, *arguments)

    monkeypatch.setattr(DeployedGraphs, "score", counted)
    other = replace(data, images=data.images * 0.99)
    for images, settings in (
        (other, quick),
        (data, replace(quick, most_votes=2)),
        (data, replace(quick, calls=6)),
        (data, replace(quick, seed=2)),
    ):
        before = scored
        run(bundle, images, attacked, write=False, work=tmp_path, settings=settings)
        assert scored == before + 4  # clean and attacked, the trial and the finalist
    before = scored
    run(bundle, data, attacked, write=False, work=tmp_path, settings=quick)
    assert scored == before, "and those of each are still there"


def test_what_an_earlier_tuning_measured_is_not_measured_again(
    bundle: Path, data: LabelledImages, attacked: LabelledImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another budget, another study: the presets that were there keep their numbers, and the finalists get theirs."""
    quick = replace(SETTINGS, trials=2, finalists=1)
    names = ("uniform", "voted")
    first = run(bundle, data, attacked, settings=quick, references=names)
    assert first.facts["taken from an earlier tuning"] == "nothing"
    score, scored = DeployedGraphs.score, set()

    def counted(self: DeployedGraphs, candidate: Any, *arguments: Any) -> Any:
        scored.add(candidate.key)
        return score(self, candidate, *arguments)

    monkeypatch.setattr(DeployedGraphs, "score", counted)
    old = {point.candidate.key for point in first.references.values()}
    second = run(bundle, data, attacked, settings=quick, references=names, calls=6, work=tmp_path / "2")
    assert second.references == first.references and second.facts["taken from an earlier tuning"] == "uniform, voted"
    assert scored and not scored & old
    # the evidence of the first has been replaced, and its numbers live on
    third = run(bundle, data, attacked, settings=quick, calls=7, work=tmp_path / "3", write=False)
    assert {name: third.references[name] for name in names} == first.references
    assert set(third.references) > set(names) and not scored & old
    # other noise, other images, or times, which were not measured: again
    for number, other in enumerate((replace(quick, seed=2), replace(quick, final_images=18))):
        scored.clear()
        found = run(bundle, data, attacked, settings=other, references=names, work=tmp_path / f"o{number}", write=False)
        assert found.facts["taken from an earlier tuning"] == "nothing" and old <= scored
    timed = {"calls": None, "ms": 1e4, "references": names, "work": tmp_path / "ms"}
    for _ in range(2):
        found = run(bundle, data, attacked, settings=quick, **timed)
        assert found.facts["taken from an earlier tuning"] == "nothing"
        assert all(point.latency_ms is not None for point in found.references.values())


@pytest.mark.parametrize("text", ["{}", "[]", '{"facts": 1}', "no JSON"])
def test_evidence_that_nobody_can_read_is_passed_over(bundle: Path, text: str) -> None:
    with edit_bundle(bundle) as edit:
        edit.write(EVIDENCE_FILE, text.encode())
    assert earlier_points(Bundle.open(bundle), "x") == {}


def test_a_study_inside_the_bundle(bundle: Path, data: LabelledImages, attacked: LabelledImages) -> None:
    with raises_code("E-work-place"):
        run(bundle, data, attacked, work=bundle / "study")
    assert verify(bundle, threads=1, pipelines=False)


def test_presets_that_are_too_expensive_are_named_and_not_measured(
    bundle: Path, data: LabelledImages, attacked: LabelledImages
) -> None:
    long = {"method": {"method": "uniform", "t_star": 400, "steps": 400}}
    with edit_bundle(bundle) as edit:
        put_presets(edit, {"long": Preset.parse(long)})
    found = run(bundle, data, attacked, write=False, settings=replace(SETTINGS, trials=2))
    assert found.skipped["long"] == 400
    assert "long" not in found.references


def test_presets_that_are_too_expensive_together_are_left_out_dearest_first(
    bundle: Path, data: LabelledImages, attacked: LabelledImages
) -> None:
    def uniform(calls: int) -> Preset:
        return Preset.parse({"method": {"method": "uniform", "t_star": 400, "steps": calls}})

    with edit_bundle(bundle) as edit:
        put_presets(edit, {f"of-{calls}": uniform(calls) for calls in (4, 9, 5, 10, 8, 7, 6)})
    found = run(bundle, data, attacked, calls=1, write=False, settings=replace(SETTINGS, trials=1, finalists=1))
    most = max(p.calls for p in found.trials)
    own = {name: p.calls for name, p in found.references.items()}
    assert Bundle.open(bundle).manifest.default_preset in own
    assert sum(own.values()) <= REFERENCE_CALLS * most < sum(own.values()) + min(found.skipped.values())
    assert {"of-9", "of-10"} <= set(found.skipped)
    assert max(c for n, c in own.items() if n.startswith("of-")) < min(found.skipped.values())


def test_only_the_references_that_are_asked_for(bundle: Path, data: LabelledImages, attacked: LabelledImages) -> None:
    quick = replace(SETTINGS, trials=1, finalists=1)
    assert set(run(bundle, data, attacked, write=False, settings=quick, references=("voted",)).references) == {"voted"}
    with raises_code("E-preset-unknown"):
        run(bundle, data, attacked, write=False, settings=quick, references=("vote",))


def test_milliseconds_are_measured(bundle: Path, data: LabelledImages, attacked: LabelledImages) -> None:
    found = run(bundle, data, attacked, calls=None, ms=10_000.0, settings=replace(SETTINGS, trials=2, most_votes=1))
    assert found.budget.unit == "ms"
    assert all(p.latency_ms is not None and 0.0 < p.latency_ms < 10_000.0 for p in found.finalists)
    description = Bundle.open(bundle).manifest.presets["fast"].description
    assert " ms; see tuning/evidence.json" in description


def test_impossible_milliseconds_name_the_smallest_budget(
    bundle: Path, data: LabelledImages, attacked: LabelledImages
) -> None:
    before = Bundle.open(bundle).content_hash
    with raises_code("E-tune-budget-small"):
        run(bundle, data, attacked, calls=None, ms=1e-6)
    assert Bundle.open(bundle).content_hash == before


@pytest.mark.parametrize("budget", [{"calls": None}, {"calls": 5, "ms": 5.0}])
def test_one_budget(bundle: Path, data: LabelledImages, attacked: LabelledImages, budget: dict[str, Any]) -> None:
    with raises_code("E-tune-budget"):
        run(bundle, data, attacked, **budget)


def test_a_precision_that_the_bundle_does_not_have(
    bundle: Path, data: LabelledImages, attacked: LabelledImages
) -> None:
    with raises_code("E-bundle-precision"):
        run(bundle, data, attacked, precisions=("int8",))


def test_variants_of_another_engine_are_not_tried(bundle: Path, data: LabelledImages, attacked: LabelledImages) -> None:
    with edit_bundle(bundle) as edit:
        step = edit.manifest.graphs["step"].model_copy(update={"precision": "int8", "target": "cpu"})
        float8 = step.model_copy(update={"precision": "fp8", "target": None})
        variants = {"int8": {"step": step}, "fp8": {"step": float8}}
        edit.manifest = edit.manifest.model_copy(update={"variants": variants})
    found = run(bundle, data, attacked, provider="openvino", write=False)
    assert {trial.candidate.precision for trial in found.trials} == {"fp32"}
    assert found.facts["provider"] == "openvino" and found.facts["openvino"][0].isdigit()
    assert "onnxruntime" not in found.facts
    other = bundle.with_name("other.journal")
    with raises_code("E-provider-variant"):
        run(bundle, data, attacked, provider="openvino", precisions=("int8",), work=other)
    with raises_code("E-provider-kernels"):
        run(bundle, data, attacked, provider="openvino", precisions=("fp8",), work=other, on_progress=pytest.fail)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"objective": "speed"}, "E-tune-objective"),
        ({"trials": 0}, "E-tune-count"),
        ({"eps": 8.0}, "E-attack-eps"),
        ({"tolerance": -0.1}, "E-tune-tolerance"),
    ],
)
def test_settings_out_of_range(options: dict[str, Any], code: str) -> None:
    with raises_code(code):
        TuneSettings(**options)
