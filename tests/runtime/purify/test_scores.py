"""Scores by the three decision rules."""

from __future__ import annotations

import numpy as np
import pytest

from edgepure.purify.results import Result
from edgepure.purify.scores import Score


def result(label: int, votes: tuple[int, ...]) -> Result:
    return Result(
        name="image",
        label=label,
        class_name=str(label),
        probabilities=np.full(10, 0.1, np.float32),
        vote_labels=votes,
        levels={},
        unet_calls=1,
        seconds=0.0,
        image=np.zeros((1, 2, 2), np.float32),
    )


def test_three_decision_rules_are_counted_apart() -> None:
    results = [
        result(3, (3, 3, 3)),  # right by every rule
        result(3, (8, 3, 3)),  # the first purification alone is wrong
        result(5, (3, 5, 5)),  # only the first is right
    ]
    score = Score.of_results(results, [3, 3, 3])
    assert (score.images, score.right, score.single, score.worst) == (3, 2, 2, 1)
    assert score.fraction == pytest.approx(2 / 3)


def test_plain_answers_have_no_votes() -> None:
    score = Score.of_labels([1, 2, 3, 4], [1, 2, 3, 3])
    assert (score.right, score.images, score.single, score.worst) == (3, 4, None, None)


def test_labels_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        Score.of_labels([1, 2], [1])
    with pytest.raises(ValueError, match="zip"):
        Score.of_results([result(1, (1,))], [1, 2])
