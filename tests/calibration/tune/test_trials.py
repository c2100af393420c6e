"""Trials are kept one by one: an interrupted search goes on as if nothing had happened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgepure.bundle.manifest import Manifest
from edgepure.purify.scores import Score
from edgepure_calibration.tune.budget import CallBudget
from edgepure_calibration.tune.points import Point
from edgepure_calibration.tune.space import SearchSpace
from edgepure_calibration.tune.trials import RANDOM_TRIALS, Trials
from edgepure_calibration.work import Work

MakePoint = Callable[..., Point]


def trials(folder: Path, seed: int) -> Trials:
    return Trials(Work(folder, {"bundle": "a", "data": "b"}), seed)


def go_on(study: Trials, space: SearchSpace, until: int, point: MakePoint) -> list[str]:
    """Trials whose numbers follow from their candidate alone; returns the keys of all."""
    while (done := len(study.points())) < until:
        trial = study.ask(space.starts())
        candidate = space.candidate(trial)
        clean, attacked = (int(candidate.key[i : i + 2], 16) * 100 // 256 for i in (0, 2))
        made = point(candidate.preset.votes.count, clean, attacked, attacked, "dominated" if clean < 30 else "")
        study.tell(
            trial, Point(candidate, made.calls, None, made.clean, made.attacked, made.whitebox, done, made.dropped)
        )
    return [p.candidate.key for p in study.points()]


def test_an_interrupted_study_comes_to_the_same_trials(manifest: Manifest, tmp_path: Path, point: MakePoint) -> None:
    space, count = SearchSpace(manifest, CallBudget(9)), RANDOM_TRIALS + 8
    whole = go_on(trials(tmp_path / "whole", 5), space, count, point)
    for stop in (0, 2, 3, RANDOM_TRIALS + 2, count):
        study = trials(tmp_path / "parts", 5)
        go_on(study, space, stop, point)
        space.candidate(study.ask(space.starts()))  # killed in the middle of a trial
    assert go_on(trials(tmp_path / "parts", 5), space, count, point) == whole
    assert go_on(trials(tmp_path / "other seed", 6), space, 4, point) != whole[:4]


@pytest.mark.filterwarnings("error")  # Optuna only warns of a start that is out of range
@pytest.mark.parametrize("calls", [1, 2, 5, 60])
@pytest.mark.parametrize("timesteps", [20, 1000])
def test_the_first_trials_are_the_starts(manifest: Manifest, tmp_path: Path, calls: int, timesteps: int) -> None:
    schedule = manifest.schedule.model_copy(update={"timesteps": timesteps, "beta_end": 0.2})
    space = SearchSpace(manifest.model_copy(update={"schedule": schedule}), CallBudget(calls))
    study, seen = trials(tmp_path / "s", 3), []
    for number in range(len(space.starts())):
        trial = study.ask(space.starts())
        candidate = space.candidate(trial)
        seen.append(candidate.preset.method.method)
        study.tell(trial, Point(candidate, 1, None, Score(10, 9), Score(10, 8), None, number))
        assert trial.params.items() >= space.starts()[number].items()
    assert tuple(seen) == space.methods


def test_a_failed_trial_is_asked_again(manifest: Manifest, tmp_path: Path) -> None:
    space, study = SearchSpace(manifest, CallBudget(9)), trials(tmp_path / "s", 0)
    first = study.ask()
    candidate = space.candidate(first)
    study.fail(first)
    assert space.candidate(study.ask()) == candidate
    assert study.points() == []


def test_given_up_trials_are_kept(tmp_path: Path, point: MakePoint) -> None:
    study = trials(tmp_path / "s", 0)
    for made in (point(1, 90, 50, None, "dominated by trial 0"), point(2, 91, 51, 40)):
        study.tell(study.ask(), made)
    again = trials(tmp_path / "s", 0).points()
    assert [p.dropped for p in again] == ["dominated by trial 0", ""]
    assert again[1].whitebox is not None


def test_time_adds_up_over_runs(tmp_path: Path) -> None:
    study = trials(tmp_path / "s", 0)
    assert study.seconds == 0.0
    with pytest.raises(KeyboardInterrupt), study.timed():
        raise KeyboardInterrupt
    first = study.seconds
    assert first > 0.0
    again = trials(tmp_path / "s", 0)
    with again.timed():
        pass
    assert again.seconds > first


@pytest.mark.parametrize("content", [b"", b"no JSON", b"[1]", b'{"point": 1}', b'{"point": {}, "params": {}}'])
def test_from_a_damaged_trial_on_they_are_made_anew(
    manifest: Manifest, tmp_path: Path, point: MakePoint, content: bytes
) -> None:
    space = SearchSpace(manifest, CallBudget(9))
    whole = go_on(trials(tmp_path / "s", 5), space, 4, point)
    work = Work(tmp_path / "s", {"bundle": "a", "data": "b"})
    path = work._path({"what": "trial", "number": 2}, "json")
    assert path is not None
    path.write_bytes(content)
    assert len(trials(tmp_path / "s", 5).points()) == 2
    assert go_on(trials(tmp_path / "s", 5), space, 4, point) == whole
