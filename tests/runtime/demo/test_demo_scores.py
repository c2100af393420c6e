"""Scores, their intervals, and the protocols beside them."""

from __future__ import annotations

import numpy as np
import pytest

from edgepure.demo.scores import Protocol, Score, clopper_pearson
from edgepure.errors import ConfigError
from edgepure.purify.results import Result


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


@pytest.mark.parametrize(
    ("right", "images"),
    [(0, 1), (1, 1), (0, 360), (360, 360), (359, 360), (1, 360), (107, 128), (64, 128), (9700, 10_000)],
)
def test_interval_is_the_one_of_the_beta_distribution(right: int, images: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    low = 0.0 if right == 0 else stats.beta.ppf(0.025, right, images - right + 1)
    high = 1.0 if right == images else stats.beta.ppf(0.975, right + 1, images - right)
    assert clopper_pearson(right, images) == pytest.approx((low, high), abs=1e-9)


def test_interval_known_value() -> None:
    # 1 - 0.025^(1/10): the "rule of three" case, all ten right
    assert clopper_pearson(10, 10) == pytest.approx((0.025 ** (1 / 10), 1.0), abs=1e-9)


@pytest.mark.parametrize(("right", "images", "confidence"), [(1, 0, 0.95), (-1, 5, 0.95), (6, 5, 0.95), (1, 5, 1.0)])
def test_impossible_counts_are_refused(right: int, images: int, confidence: float) -> None:
    with pytest.raises(ConfigError, match="no interval"):
        clopper_pearson(right, images, confidence)


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


def test_protocol_sentence_names_everything() -> None:
    protocol = Protocol(
        images="128 test images",
        decision="majority of 5 purifications",
        seeds={"noise": 7, "attack": 8},
        attack="PGD-EOT",
        norm="Linf",
        eps=0.05,
        steps=15,
        step_size=0.0125,
        random_start=True,
        eot=3,
        gradient="exact",
        target="the whole pipeline",
        note="Mask detached.",
    )
    assert protocol.sentence() == (
        "PGD-EOT, Linf, eps 0.05, 15 steps of 0.0125, random start; EOT 3; on the whole pipeline; gradient: exact; "
        "128 test images; majority of 5 purifications; seeds: noise 7, attack 8. Mask detached."
    )
    assert protocol.to_dict()["eot"] == 3


def test_protocol_of_clean_images_names_no_attack() -> None:
    assert Protocol(images="5 images", decision="one answer").sentence() == "5 images; one answer."
