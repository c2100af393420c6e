"""Which flips count."""

from __future__ import annotations

import json

import numpy as np
import pytest

from edgepure.intervals import clopper_pearson
from edgepure.parity.decisions import LabelFlips, compare_decisions
from edgepure.parity.executors import PresetRun


def run(logits: np.ndarray) -> PresetRun:
    images = np.zeros((len(logits), 1, 2, 2), np.float32)
    return PresetRun(images, logits.astype(np.float32), None, ())


def logits(labels: list[int], margin: float = 1.0) -> np.ndarray:
    return margin * np.eye(3, dtype=np.float32)[labels]


def decide(reference: list[int], deployed: list[int], redrawn: list[int] | None, precision: str = "fp32") -> LabelFlips:
    base = run(logits(reference))
    redraw = None if redrawn is None else (base, run(logits(redrawn)))
    return compare_decisions("p", "clean", base, run(logits(deployed)), precision, redraw)


def test_equal_labels_pass_and_the_bound_says_how_little_is_known() -> None:
    found = decide([0, 1, 2], [0, 1, 2], [0, 1, 2])
    assert found and (found.flips, found.redraw_flips, found.beyond) == (0, 0, 0)
    assert found.interval == clopper_pearson(0, 3, 0.95)
    assert "too few" in str(found)


def test_a_flip_that_a_redraw_makes_too_does_not_count() -> None:
    found = decide([0, 1, 2], [0, 1, 0], [0, 1, 1])
    assert found and (found.flips, found.redraw_flips, found.beyond) == (1, 1, 0)
    assert not decide([0, 1, 2], [0, 1, 0], [1, 1, 2])
    assert not decide([0, 1, 2], [0, 1, 0], None)


def test_a_redraw_by_the_deployment_is_compared_with_itself() -> None:
    """A deployment that is always wrong must not excuse itself."""
    base, wrong = run(logits([0, 0])), run(logits([1, 1]))
    assert not compare_decisions("p", "self-test", base, wrong, "fp32", (wrong, wrong))


def test_a_tie_does_not_count() -> None:
    base = run(np.array([[1.0, 0.9995, 0.0], [3.0, 0.0, 0.0]]))
    other = run(np.array([[0.9995, 1.0, 0.0], [3.0, 0.0, 0.0]]))
    found = compare_decisions("p", "clean", base, other, "fp32")
    assert found and (found.flips, int(found.tied.sum()), found.beyond) == (1, 1, 0)


@pytest.mark.parametrize(
    ("precision", "images", "flips", "passes"),
    [
        ("fp32", 1000, 1, False),
        ("fp16", 1000, 5, True),
        ("fp16", 1000, 20, False),
        ("int8", 2, 1, True),
        ("int8", 2, 2, False),
        ("int8", 1000, 20, True),
        ("int8", 1000, 40, False),
    ],
)
def test_flips_fail_once_the_data_show_more_than_allowed(precision: str, images: int, flips: int, passes: bool) -> None:
    deployed = [1] * flips + [0] * (images - flips)
    found = decide([0] * images, deployed, [0] * images, precision)
    assert bool(found) is passes
    assert bool(found.check) is passes


def test_margins_and_accuracy() -> None:
    base, other = run(logits([0, 1], 2.0)), run(logits([0, 1], 1.5))
    labels = np.array([0, 0])
    found = compare_decisions("p", "clean", base, other, "fp32", (base, run(logits([0, 1], 3.0))), labels)
    np.testing.assert_allclose(found.margin_shifts, [-0.5, -0.5])
    assert found.redraw_shifts is not None
    np.testing.assert_allclose(found.redraw_shifts, [1.0, 1.0])
    data = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert data["accuracy_reference"] == data["accuracy_deployed"] == 0.5
    assert data["agreement"] == 1.0
    assert data["margin_shift"]["mean_abs"] == 0.5
