"""There is no robust accuracy without its protocol: not to make, not to print, not to put on a card."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from attack_protocols import PROTOCOL
from codes import raises_code

from edgepure.intervals import clopper_pearson
from edgepure_calibration.attacks.square import log_probabilities
from edgepure_calibration.evaluate import Accuracy, EvaluateSettings, Footnotes, Rule
from edgepure_calibration.evaluate.draws import Draws


def accuracy(**changes: Any) -> Accuracy:
    given: dict[str, Any] = {"protocol": PROTOCOL, "rule": Rule("single"), "right": (4, 6), "images": 10}
    return Accuracy(**{**given, **changes})


@pytest.mark.parametrize("missing", [{"protocol": None}, {"protocol": "PGD, 40 steps"}, {"rule": None}])
def test_it_cannot_be_made_without_its_protocol_and_rule(missing: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="Protocol"):
        accuracy(**missing)
    with pytest.raises(TypeError):
        Accuracy(Rule("single"), (1,), 10)  # type: ignore[call-arg, arg-type]


@pytest.mark.parametrize("name", ["attack", "target", "judge", "noise", "images", "data_sha256", "seeds"])
def test_a_protocol_without_what_repeats_it_is_none(name: str) -> None:
    empty: Any = () if name == "seeds" else ""
    with raises_code("E-protocol") as caught:
        replace(PROTOCOL, **{name: empty})
    assert repr(name) in str(caught.value)


def test_every_way_to_print_it_names_the_protocol() -> None:
    value = accuracy()
    for text in (str(value), f"{value}", f"{value!s}", value.cell(Footnotes())):
        assert "50.0 %" in text
        assert ("pgd" in text and "EOT 5" in text and "seeds 0, 1" in text) or "[1]" in text
    with pytest.raises(TypeError, match="footnotes"):
        f"{value:.1f}"
    with pytest.raises(TypeError):
        float(value)  # type: ignore[arg-type]
    assert value.to_dict()["protocol"]["eps"] == 0.05


def test_numbers_of_several_seeds() -> None:
    value = accuracy()
    assert value.fraction == 0.5
    assert value.spread == (0.4, 0.6)
    assert value.interval == clopper_pearson(5, 10)  # of ten images, not of twenty
    with raises_code("E-accuracy-seeds"):
        accuracy(right=(1, 2, 3))
    with raises_code("E-accuracy-share"):
        accuracy(right=(11, 0))


def test_footnotes_cite_equal_protocols_once_and_say_what_all_share_once() -> None:
    notes = Footnotes()
    other = replace(PROTOCOL, attack="surrogate", surrogate=True)
    assert [notes.cite(p) for p in (PROTOCOL, other, replace(PROTOCOL))] == [1, 2, 1]
    shared, first, second = notes.lines()
    assert "linf eps 0.05" in shared and "linf eps 0.05" not in first
    assert "pgd" in first
    assert "surrogate (surrogate gradient)" in second  # marked wherever it is named
    assert notes.lines() == notes.lines()


def test_the_three_rules_from_one_set_of_answers() -> None:
    answers = np.array([[0, 0, 1], [0, 1, 1], [0, 0, 0], [1, 0, 0]])  # 4 answers, 3 images
    probabilities = np.where(np.eye(2)[answers] > 0, 0.9, 0.1).astype(np.float32)
    draws = Draws(log_probabilities(probabilities), np.array([0, 0, 0]), 3.0)
    np.testing.assert_array_equal(draws.answers, answers)
    assert draws.right(Rule("single")).tolist() == [True, True, False]
    assert draws.right(Rule("worst", 3)).tolist() == [True, False, False]
    assert draws.right(Rule("worst", 4)).tolist() == [False, False, False]
    assert draws.right(Rule("majority", 3)).tolist() == [True, True, False]
    with pytest.raises(ValueError, match="5 needs 5 answers"):
        draws.right(Rule("majority", 5))
    with raises_code("E-accuracy-rule"):
        Rule("median", 3)


def test_the_resubmission_curve_is_the_mean_over_all_choices() -> None:
    answers = np.array([[0, 0], [0, 1], [1, 1], [0, 1]])  # image 0: 1 of 4 wrong; image 1: 3 of 4
    draws = Draws(log_probabilities(np.eye(2, dtype=np.float32)[answers]), np.array([0, 0]), 1.0)
    chances = [(1 / 4 + 3 / 4) / 2, (1 / 2 + 1) / 2, (3 / 4 + 1) / 2, 1.0]
    assert draws.resubmission() == pytest.approx(chances)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"attacks": ("fgsm",)}, "E-attack-unknown"),
        ({"norm": "l1"}, "E-attack-norm"),
        ({"eps": 0.0}, "E-attack-eps"),
        ({"eps": 8.0}, "E-attack-eps"),
        ({"norm": "l2", "attacks": ("square",)}, "E-attack-norm"),
        ({"mask_gradient": "hard"}, "E-attack-mask-gradient"),
        ({"seeds": (1, 1)}, "E-seeds"),
        ({"seeds": ()}, "E-seeds"),
        ({"steps": 0}, "E-attack-count"),
        ({"surrogate_calls": 0}, "E-attack-count"),
        ({"votes": 0}, "E-attack-count"),
        ({"norm_penalty": -1.0}, "E-attack-penalty"),
        ({"field": 2.0}, "E-attack-penalty"),
    ],
)
def test_bad_settings_are_refused_in_one_sentence(changes: dict[str, Any], code: str) -> None:
    with raises_code(code):
        EvaluateSettings(**changes)
