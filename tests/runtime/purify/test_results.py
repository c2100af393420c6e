"""Votes become decisions."""

from __future__ import annotations

import numpy as np
import pytest
from codes import raises_code
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgepure.purify.results import decide


def logits(*rows: list[float]) -> np.ndarray:
    return np.array(rows, np.float32)


def test_majority_and_mean_can_disagree() -> None:
    votes = logits([0.1, 0.0, -9.0], [0.1, 0.0, -9.0], [-9.0, 9.0, -9.0])
    assert decide(votes, "majority")[0] == 0
    assert decide(votes, "mean")[0] == 1


def test_a_tie_goes_to_the_higher_mean_probability() -> None:
    votes = logits([0.0, 5.0], [1.0, 0.0])
    label, mean, labels = decide(votes, "majority")
    assert labels == (1, 0)
    assert label == int(mean.argmax()) == 1


@given(
    hnp.arrays(np.float32, st.tuples(st.integers(1, 7), st.integers(2, 6)), elements=st.floats(-80, 80, width=32)),
    st.sampled_from(["majority", "mean"]),
)
def test_a_decision_is_a_vote_and_probabilities_sum_to_one(votes: np.ndarray, rule: str) -> None:
    label, mean, labels = decide(votes, rule)
    assert mean.sum() == pytest.approx(1.0, abs=1e-5)
    assert len(labels) == len(votes)
    if rule == "majority":
        assert label in labels
    assert decide(votes[::-1], rule)[0] == label or mean[label] == pytest.approx(np.sort(mean)[-2], abs=1e-6)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_are_no_decision(bad: float) -> None:
    with raises_code("E-not-finite-logits"):
        decide(logits([0.0, 1.0], [bad, 0.0]), "mean")
    label, _, _ = decide(logits([float("-inf"), 1.0]), "mean")  # a class that is impossible
    assert label == 1
