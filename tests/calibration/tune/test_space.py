"""Whatever the search suggests is a preset that compiles on the bundle and stays within the budget."""

from __future__ import annotations

from itertools import pairwise

import optuna
import pytest
from codes import raises_code
from hypothesis import given
from hypothesis import strategies as st

from edgepure.bundle.calibration import Calibration
from edgepure.bundle.manifest import Manifest
from edgepure.methods.planner import Planner
from edgepure_calibration.tune.budget import CallBudget, TimeBudget
from edgepure_calibration.tune.candidate import Candidate, calls_per_decision
from edgepure_calibration.tune.space import SearchSpace, calibrated_ssni, searched

SIGMOID = {"reweighting": "sigmoid", "mu": 30.0, "tau": 4.0, "probe": {"levels": [10], "label": "index"}}


def suggestions(space: SearchSpace, count: int, seed: int) -> list[Candidate]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return [space.candidate(study.ask()) for _ in range(count)]


def with_ssni(manifest: Manifest) -> Manifest:
    preset = manifest.presets["adaptive"].model_dump(mode="json") | {"ssni": SIGMOID}
    return Manifest.from_data(dict(manifest) | {"presets": {**manifest.presets, "adaptive": preset}})


@given(calls=st.integers(1, 130), seed=st.integers(0, 10_000))
def test_every_suggestion_compiles_within_the_calls(manifest: Manifest, calls: int, seed: int) -> None:
    manifest = with_ssni(manifest)
    planner = Planner(manifest.schedule.build(), 256)
    for candidate in suggestions(SearchSpace(manifest, CallBudget(calls)), 5, seed):
        assert 1 <= calls_per_decision(planner, candidate.preset) <= calls
        for norm in (0.0, 25.0, 1e6):  # SSNI: whatever the image
            planner.plan(candidate.preset, norm)


@pytest.mark.parametrize("timesteps", [20, 100, 1000, 4000])
def test_schedules_of_any_length(manifest: Manifest, timesteps: int) -> None:
    manifest = manifest.model_copy(
        update={"schedule": manifest.schedule.model_copy(update={"timesteps": timesteps, "beta_end": 0.2})}
    )
    planner = Planner(manifest.schedule.build(), 256)
    for candidate in suggestions(SearchSpace(manifest, CallBudget(12)), 60, 1):
        assert calls_per_decision(planner, candidate.preset) <= 12


def test_the_budget_is_used_and_all_methods_are_tried(manifest: Manifest) -> None:
    planner = Planner(manifest.schedule.build(), 256)
    found = suggestions(SearchSpace(manifest, CallBudget(10)), 200, 0)
    assert max(calls_per_decision(planner, c.preset) for c in found) == 10
    assert {c.preset.method.method for c in found} == set(searched())
    assert {c.preset.votes.count for c in found} >= {1, 2, 3, 5}
    assert {c.preset.votes.rule for c in found} == {"majority", "mean"}
    assert any(c.preset.mask is not None and c.preset.mask.threshold is not None for c in found)


def test_one_call_leaves_only_uniform(manifest: Manifest) -> None:
    assert SearchSpace(manifest, CallBudget(1)).kinds == {"uniform": 1}


def test_without_a_mask_graph_no_method_needs_one(manifest: Manifest) -> None:
    bare = manifest.model_copy(update={"attention": None})
    found = suggestions(SearchSpace(bare, CallBudget(10)), 60, 0)
    assert all(c.preset.mask is None for c in found)
    with raises_code("E-tune-method-mask"):
        SearchSpace(bare, CallBudget(10), methods=["heterogeneous"])


def test_learned_variance_is_searched_only_where_the_network_has_it(manifest: Manifest) -> None:
    def learned(space: SearchSpace) -> set[bool]:
        found = suggestions(space, 80, 3)
        return {getattr(c.preset.method, "variance", "") == "learned" for c in found}

    assert learned(SearchSpace(manifest, CallBudget(6))) == {False}
    other = manifest.model_copy(update={"learned_variance": True})
    assert learned(SearchSpace(other, CallBudget(6))) == {False, True}


def test_ssni_needs_a_calibration_and_room_for_its_probe(manifest: Manifest) -> None:
    assert calibrated_ssni(manifest) == {}  # linear reweighting has no bound on its calls
    calibrated = with_ssni(manifest)
    assert list(calibrated_ssni(calibrated)) == ["probe at t 10"]
    assert not SearchSpace(calibrated, CallBudget(3)).ssni
    found = [c.preset.ssni for c in suggestions(SearchSpace(calibrated, CallBudget(8)), 60, 0)]
    specs = [s for s in found if s is not None]
    assert 0 < len(specs) < 60
    assert len({s.tau for s in specs}) > 5
    assert {s.mu for s in specs} == {30.0}


def test_a_calibration_comes_before_the_presets(manifest: Manifest) -> None:
    norms = {"images": 50, "mean": 40.0, "std": 3.0, "min": 30.0, "max": 50.0, "quantiles": {"0.5": 40.0}}
    calibration = Calibration.model_validate(
        {
            "created": "2026-01-01",
            "edgepure_version": "0",
            "seed": 0,
            "reason": "the cheapest",
            "clean": {"sha256": "0" * 64, "images": 50},
            "probes": [{"probe": {"levels": [20]}, "clean": norms}, {"probe": {"probes": 3}, "clean": norms}],
            "chosen": {"levels": [20]},
            "linear": {"xi_min": 30.0, "xi_max": 50.0},
            "sigmoid": {"mu": 41.0, "tau": 2.0, "bias": 0.1},
        }
    )
    found = calibrated_ssni(with_ssni(manifest).model_copy(update={"calibration": calibration}))
    assert list(found) == ["probe at t 20", "probe at 3 levels"]
    assert (found["probe at t 20"].mu, found["probe at t 20"].tau, found["probe at t 20"].bias) == (41.0, 2.0, 0.0)


def test_presets_of_an_earlier_tuning_are_no_source_of_statistics(manifest: Manifest) -> None:
    preset = with_ssni(manifest).presets["adaptive"]
    assert calibrated_ssni(manifest.model_copy(update={"presets": {"robust": preset}})) == {}


def test_a_budget_that_nothing_meets_names_the_smallest_one(manifest: Manifest) -> None:
    with raises_code("E-tune-budget-calls"):
        CallBudget(0)
    with raises_code("E-tune-budget-small") as caught:
        SearchSpace(manifest, CallBudget(1), methods=["heterogeneous", "gdmp"])
    assert "smallest possible is 2 UNet calls (heterogeneous" in str(caught.value)
    with raises_code("E-tune-budget-small") as caught:
        SearchSpace(manifest, TimeBudget(0.5, 0.2, {1: 1.0, 8: 4.0}))
    assert "budget of 0.5 ms: the smallest possible is 1.2 ms (uniform" in str(caught.value)
    for ms in (0.0, -1.0, float("nan"), float("inf")):
        with raises_code("E-tune-budget-ms"):
            TimeBudget(ms, 0.2, {1: 1.0})


def test_unknown_method(manifest: Manifest) -> None:
    with raises_code("E-tune-method-unknown"):
        SearchSpace(manifest, CallBudget(5), methods=["diffpure"])


def test_milliseconds_become_rows_by_the_price_of_a_shared_call() -> None:
    budget = TimeBudget(10.0, 2.0, {1: 1.0, 2: 1.5, 8: 4.5})
    assert budget.rows(1) == 8
    assert budget.rows(1, probe_calls=3) == 5
    assert budget.rows(2) == 5
    assert budget.rows(5) == 2  # 3.0 ms a call
    assert budget.rows(16) == 0  # 9 ms a call, 8 ms left
    rows = [budget.rows(votes) for votes in range(1, 20)]
    assert all(a >= b for a, b in pairwise(rows))
    assert budget.cost_of(3) == 5.0


def test_the_sampler_that_learns_meets_no_changing_choices(manifest: Manifest) -> None:
    """Optuna refuses categorical parameters whose choices change from trial to trial."""
    space = SearchSpace(with_ssni(manifest), CallBudget(7), precisions=("fp32", "int8"))
    study = optuna.create_study(
        directions=["minimize", "maximize"], sampler=optuna.samplers.TPESampler(seed=1, n_startup_trials=5)
    )
    for number in range(40):
        trial = study.ask()
        candidate = space.candidate(trial)
        study.tell(trial, [float(candidate.preset.votes.count), float(number % 7)])


def test_key_ignores_the_description_and_nothing_else(manifest: Manifest) -> None:
    preset = manifest.presets["uniform"]
    same = preset.model_copy(update={"description": "other words"})
    assert Candidate(preset).key == Candidate(same).key
    assert Candidate(preset).key != Candidate(preset, "int8").key
    assert Candidate(preset).key != Candidate(manifest.presets["voted"]).key
    assert Candidate.from_dict(Candidate(preset, "int8").to_dict()) == Candidate(preset, "int8")
