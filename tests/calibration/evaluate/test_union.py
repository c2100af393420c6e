"""An image counts for the union of attacks only if it is right unattacked and under each of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edgepure_calibration.attacks import AttackProtocol
from edgepure_calibration.evaluate.draws import Draws, rules
from edgepure_calibration.evaluate.protocols import clean_protocol, union_protocol
from edgepure_calibration.evaluate.union import union

LABELS = np.zeros(6, np.int64)


def protocols(seeds: tuple[int, ...]) -> list[AttackProtocol]:
    clean = clean_protocol(
        {
            "judge": "j",
            "noise": "n",
            "preset": "p",
            "preset_sha256": "s",
            "bundle_sha256": "b",
            "images": "six",
            "data_sha256": "d",
            "seeds": seeds,
            "twin": "t",
        }
    )
    return [replace(clean, attack=name, target="the whole defence") for name in ("transfer", "pgd")]


def draws(right: np.ndarray) -> Draws:
    """``right`` ``[D, N]``: which answers are right."""
    two = np.where(right[..., None], np.log([0.9, 0.1]), np.log([0.1, 0.9]))
    return Draws(two.astype(np.float32), LABELS, 1.0)


def all_right() -> np.ndarray:
    return np.ones((5, 6), bool)


def test_each_attack_takes_its_own_images() -> None:
    clean, one, other = all_right(), all_right(), all_right()
    clean[:, 0] = False
    one[:, 1] = False
    other[:, 1:3] = False
    other[0, 3] = False  # one answer of five
    made = union_protocol(protocols((0,)))
    found = {a.rule.kind: a.right for a in union(made, rules(5, 5), draws(clean), [[draws(one)], [draws(other)]])}
    assert found == {"single": (2,), "worst": (2,), "majority": (3,)}
    assert made.title == "all of these" and "transfer, pgd" in made.sentence() and not made.surrogate


def test_seeds_are_counted_apart() -> None:
    good, bad = all_right(), all_right()
    bad[:, :4] = False
    made = union_protocol(protocols((0, 1)))
    found = union(made, rules(5, 5), draws(good), [[draws(good), draws(bad)], [draws(good), draws(good)]])
    assert {a.right for a in found} == {(6, 2)}


@given(st.lists(st.lists(st.booleans(), min_size=30, max_size=30), min_size=3, max_size=3))
def test_no_attack_alone_leaves_less(answers: list[list[bool]]) -> None:
    clean, *attacked = (draws(np.array(part).reshape(5, 6)) for part in answers)
    made = union_protocol(protocols((0,)))
    for accuracy in union(made, rules(5, 3), clean, [[part] for part in attacked]):
        alone = [int(part.right(accuracy.rule).sum()) for part in (clean, *attacked)]
        assert accuracy.right[0] <= min(alone)
