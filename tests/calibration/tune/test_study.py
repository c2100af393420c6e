"""Trials in a file: an interrupted study goes on as if nothing had happened, and another one is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgepure.bundle.manifest import Manifest
from edgepure.errors import ConfigError, EdgepureError
from edgepure.purify.scores import Score
from edgepure_calibration.tune.budget import CallBudget
from edgepure_calibration.tune.candidate import Candidate
from edgepure_calibration.tune.points import Point
from edgepure_calibration.tune.space import SearchSpace
from edgepure_calibration.tune.study import RANDOM_TRIALS, Study
from edgepure_calibration.tune.study_file import study_file

MakePoint = Callable[..., Point]
MADE_FOR = {"the bundle": "a", "the data": "b"}


def go_on(study: Study, space: SearchSpace, until: int, point: MakePoint) -> list[str]:
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
    space, trials = SearchSpace(manifest, CallBudget(9)), RANDOM_TRIALS + 8
    whole = go_on(Study(tmp_path / "whole", MADE_FOR, 5), space, trials, point)
    for stop in (0, 2, 3, RANDOM_TRIALS + 2, trials):
        study = Study(tmp_path / "parts", MADE_FOR, 5)
        go_on(study, space, stop, point)
        space.candidate(study.ask(space.starts()))  # killed in the middle of a trial
    assert go_on(Study(tmp_path / "parts", MADE_FOR, 5), space, trials, point) == whole
    assert go_on(Study(tmp_path / "other seed", MADE_FOR, 6), space, 4, point) != whole[:4]


@pytest.mark.filterwarnings("error")  # Optuna only warns of a start that is out of range
@pytest.mark.parametrize("calls", [1, 2, 5, 60])
@pytest.mark.parametrize("timesteps", [20, 1000])
def test_the_first_trials_are_the_starts(manifest: Manifest, tmp_path: Path, calls: int, timesteps: int) -> None:
    schedule = manifest.schedule.model_copy(update={"timesteps": timesteps, "beta_end": 0.2})
    space = SearchSpace(manifest.model_copy(update={"schedule": schedule}), CallBudget(calls))
    study, seen = Study(tmp_path / "s", MADE_FOR, 3), []
    for number in range(len(space.starts())):
        trial = study.ask(space.starts())
        candidate = space.candidate(trial)
        seen.append(candidate.preset.method.method)
        study.tell(trial, Point(candidate, 1, None, Score(10, 9), Score(10, 8), None, number))
        assert trial.params.items() >= space.starts()[number].items()
    assert tuple(seen) == space.methods


def test_a_failed_trial_is_asked_again(manifest: Manifest, tmp_path: Path) -> None:
    space, study = SearchSpace(manifest, CallBudget(9)), Study(tmp_path / "s", MADE_FOR, 0)
    first = study.ask()
    candidate = space.candidate(first)
    study.fail(first)
    assert space.candidate(study.ask()) == candidate
    assert study.points() == []


def test_given_up_trials_are_kept(tmp_path: Path, point: MakePoint) -> None:
    study = Study(tmp_path / "s", MADE_FOR, 0)
    for made in (point(1, 90, 50, None, "dominated by trial 0"), point(2, 91, 51, 40)):
        study.tell(study.ask(), made)
    again = Study(tmp_path / "s", MADE_FOR, 0).points()
    assert [p.dropped for p in again] == ["dominated by trial 0", ""]
    assert again[1].whitebox is not None


def test_remembers_plain_data(tmp_path: Path) -> None:
    study = Study(tmp_path / "s", MADE_FOR, 0)
    assert study.recall("price") is None
    study.remember("price", {"1": 0.5})
    assert Study(tmp_path / "s", MADE_FOR, 0).recall("price") == {"1": 0.5}


def test_time_adds_up_over_runs(tmp_path: Path) -> None:
    study = Study(tmp_path / "s", MADE_FOR, 0)
    assert study.seconds == 0.0
    with pytest.raises(KeyboardInterrupt), study.timed():
        raise KeyboardInterrupt
    first = study.seconds
    assert first > 0.0
    again = Study(tmp_path / "s", MADE_FOR, 0)
    with again.timed():
        pass
    assert again.seconds > first


def test_a_study_of_something_else_is_refused(tmp_path: Path, point: MakePoint) -> None:
    study = Study(tmp_path / "s", MADE_FOR, 0)
    study.tell(study.ask(), point(1, 90, 50, 40))
    with pytest.raises(ConfigError, match=r"made for something else: the data differs, so its trials say nothing here"):
        Study(tmp_path / "s", {**MADE_FOR, "the data": "c"}, 0)
    with pytest.raises(ConfigError, match="the bundle, the data differ,"):
        Study(tmp_path / "s", {"the bundle": "x", "the data": "c"}, 0)


def test_what_was_refused_before_its_first_trial_stands_in_nobodys_way(tmp_path: Path, point: MakePoint) -> None:
    Study(tmp_path / "s", {**MADE_FOR, "the budget": "0 UNet calls"}, 0).remember("price", {"1": 0.5})
    study = Study(tmp_path / "s", MADE_FOR, 0)
    assert study.recall("price") is None
    study.tell(study.ask(), point(1, 90, 50, 40))
    assert len(Study(tmp_path / "s", MADE_FOR, 0).points()) == 1


@pytest.mark.parametrize("content", [b"not a study\n", b'{"some": "json"}\n', b"\xff\xfe\x00", b"[1]"])
def test_other_files_are_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"is not a study of `edgepure tune`"):
        Study(path, MADE_FOR, 0)
    assert path.read_bytes() == content


def test_a_place_that_does_not_exist(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing" / "s"):
        with pytest.raises(ConfigError, match="name a file in a folder that exists"), study_file(tmp_path / "b", path):
            pass


def test_one_run_at_a_time(tmp_path: Path) -> None:
    with study_file(tmp_path / "b", None) as path:
        assert path == tmp_path / "b.tuning.journal"
        Study(path, MADE_FOR, 0)
        with pytest.raises(EdgepureError, match=r"another run is at work with the study .*\(--study\)"):
            study_file(tmp_path / "b", path).__enter__()
    with study_file(tmp_path / "b", None):
        pass
    assert path.stat().st_size > 0
    with study_file(tmp_path / "b", tmp_path / "other"):  # nothing came of it
        pass
    assert not (tmp_path / "other").exists()


def test_an_empty_file_becomes_a_study(tmp_path: Path, manifest: Manifest) -> None:
    (tmp_path / "s").touch()
    study = Study(tmp_path / "s", MADE_FOR, 0)
    assert isinstance(SearchSpace(manifest, CallBudget(2)).candidate(study.ask()), Candidate)


def test_what_a_killed_run_left_of_a_line_is_taken_away(tmp_path: Path) -> None:
    path = tmp_path / "s"
    study = Study(path, MADE_FOR, 3)
    study.remember("price", 1)
    whole = path.read_bytes()
    study.remember("price", 2)
    written = path.read_bytes()
    for cut in range(len(whole), len(written)):  # everything of the last line but its end, too
        path.write_bytes(written[:cut])
        assert Study(path, MADE_FOR, 3).recall("price") == 1
        assert path.read_bytes().startswith(whole)
    Study(path, MADE_FOR, 3).remember("price", 3)
    assert Study(path, MADE_FOR, 3).recall("price") == 3


@pytest.mark.parametrize("line", [b"garbage", b"[1]", b'{"op_code": 99}', b'{"op_code": 4, "worker_id": "x"}', b""])
def test_a_damaged_study_is_one_sentence(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "s"
    Study(path, MADE_FOR, 3)
    path.write_bytes(path.read_bytes() + line + b"\n")
    with pytest.raises(ConfigError, match=r"the study .* is damaged .*name another file \(--study\)"):
        Study(path, MADE_FOR, 3)
