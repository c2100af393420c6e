"""The deployed engine as one function: its answers, its counts, its complaints."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_bundle as tiny
from codes import raises_code

import edgepure
from edgepure.rows.noise import SeededNoise
from edgepure_calibration.integrations.blackbox import BlackBox


@pytest.fixture(scope="module")
def purifier(tiny_bundle: Path) -> Iterator[edgepure.Purifier]:
    with edgepure.load(tiny_bundle, threads=1, slots=3) as opened:
        yield opened


IMAGES = tiny.images(4)


def test_probabilities_are_those_of_the_deployed_engine(purifier: edgepure.Purifier) -> None:
    box = BlackBox(purifier, "voted", seed=5)
    found = box(IMAGES)
    wanted = purifier.run(IMAGES, "voted", noise=SeededNoise((5 << 32) + 1))
    np.testing.assert_array_equal(found, np.stack([r.probabilities for r in wanted]))
    assert found.dtype == np.float32
    assert found.shape == (4, box.classes) == (4, 2)


def test_logits_have_these_probabilities(purifier: edgepure.Purifier) -> None:
    logits, probabilities = (BlackBox(purifier, answer=a, seed=5)(IMAGES) for a in ("logits", "probabilities"))  # type: ignore[arg-type]
    np.testing.assert_allclose(np.exp(logits), probabilities, rtol=1e-6)


def test_decisions_are_one_hot_and_follow_the_rule(purifier: edgepure.Purifier) -> None:
    answers = BlackBox(purifier, "voted", answer="decision", seed=5)(IMAGES)
    labels = [r.label for r in purifier.run(IMAGES, "voted", noise=SeededNoise((5 << 32) + 1))]
    assert answers.argmax(1).tolist() == labels
    assert set(np.unique(answers)) == {0.0, 1.0}
    assert (answers.sum(1) == 1.0).all()


def test_counts_queries_and_unet_calls(purifier: edgepure.Purifier) -> None:
    box = BlackBox(purifier, "uniform")
    box(IMAGES)
    box(IMAGES[:1])
    assert (box.queries, box.unet_calls) == (5, 5 * 4)
    box.reset()
    box(IMAGES[:2])
    assert (box.queries, box.unet_calls) == (2, 2 * 4)
    adaptive = BlackBox(purifier, "adaptive", seed=1)
    adaptive(IMAGES)
    expected = sum(r.unet_calls for r in purifier.run(IMAGES, "adaptive", noise=SeededNoise((1 << 32) + 1)))
    assert adaptive.unet_calls == expected >= 4 * 2


def test_votes_can_be_overridden(purifier: edgepure.Purifier) -> None:
    box = BlackBox(purifier, "uniform", votes=3)
    box(IMAGES[:1])
    assert box.unet_calls == 3 * 4


def test_fresh_noise_answers_differently_and_fixed_noise_does_not(purifier: edgepure.Purifier) -> None:
    middle = np.full((3, 1, 16, 16), 0.5, np.float32)
    fresh, fixed = BlackBox(purifier, "uniform"), BlackBox(purifier, "uniform", noise="fixed")
    assert not np.array_equal(fresh(middle), fresh(middle))
    first = fixed(middle)
    np.testing.assert_array_equal(first, fixed(middle))
    np.testing.assert_array_equal(first[0], first[2])  # nor does the place in the batch matter
    np.testing.assert_array_equal(fixed(middle[:1])[0], first[0])


def test_an_empty_batch_is_no_query(purifier: edgepure.Purifier) -> None:
    box = BlackBox(purifier, "uniform")
    assert box(IMAGES[:0]).shape == (0, 2)
    assert box.queries == 0


def test_float64_and_rounding_are_taken(purifier: edgepure.Purifier) -> None:
    box = BlackBox(purifier, "uniform", noise="fixed", seed=1)
    np.testing.assert_array_equal(box(IMAGES.astype(np.float64)), box(IMAGES))
    assert np.isfinite(box(np.full((1, 1, 16, 16), 1.0 + 5e-7, np.float32))).all()


BAD: list[tuple[Any, str]] = [
    (IMAGES[0], "E-batch-shape"),
    (IMAGES[:, :, :8], "E-batch-shape"),
    (IMAGES + 1.0, "E-batch-range"),
    (IMAGES * np.nan, "E-batch-range"),
]


@pytest.mark.parametrize(("images", "code"), BAD)
def test_bad_batches(purifier: edgepure.Purifier, images: Any, code: str) -> None:
    box = BlackBox(purifier, "uniform")
    with raises_code(code):
        box(images)
    assert box.queries == 0


def test_bad_settings(purifier: edgepure.Purifier) -> None:
    with raises_code("E-answer-unknown"):
        BlackBox(purifier, answer="label")  # type: ignore[arg-type]
    with raises_code("E-preset-unknown"):
        BlackBox(purifier, "unifrom")
