"""The tuning experiment: what it compares with, and how the comparison is counted."""

from __future__ import annotations

import numpy as np
import pytest
from data import load_digits_split
from tune import BUDGET, labelled, papers_preset
from tune_report import Answer, difference

from edgepure import Bundle
from edgepure.demo import demo_bundle
from edgepure.methods.planner import Planner
from edgepure.purify.scores import Score
from edgepure_calibration.tune.candidate import Candidate, calls_per_decision


@pytest.mark.parametrize("area", [None, 0.3])
def test_the_baseline_is_the_published_setting_with_its_hundred_calls(area: float | None) -> None:
    preset = papers_preset(area)
    planner = Planner(Bundle.open(demo_bundle(), verify=False).manifest.schedule.build(), 256)
    assert calls_per_decision(planner, preset) == 100 == 10 * BUDGET
    plan = planner.plan(preset)
    assert plan.levels == {"t_l": 200.0, "t_s": 100.0}
    assert preset.mask is not None
    assert (preset.mask.threshold, preset.mask.area) == ((0.9, None) if area is None else (None, area))
    assert preset.votes.count == 1


def test_tuning_and_test_images_are_disjoint() -> None:
    split = load_digits_split()
    seen = {image.tobytes() for image in labelled(split.train, split.validation).images}
    repeated = sum(image.tobytes() in seen for image in labelled(split.test).images)
    assert repeated == 0


def answer(right: list[bool]) -> Answer:
    score = Score(len(right), sum(right))
    return Answer("some", Candidate(papers_preset(None)), 100, score, score, np.array(right), 1.0)


def test_the_difference_is_paired() -> None:
    one, other = answer([True] * 6 + [False] * 4), answer([True] * 4 + [False] * 2 + [True] + [False] * 3)
    found = difference(one, other)
    assert found["difference"] == pytest.approx(0.1)
    assert (found["only the first right"], found["only the second right"]) == (2, 1)
    # McNemar's counts: variance (3 - 1 / 10) / 100
    assert found["high"] - found["low"] == pytest.approx(2 * 1.96 * 0.029**0.5)
    same = difference(one, one)
    assert same["low"] == same["high"] == 0.0
