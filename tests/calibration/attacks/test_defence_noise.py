"""Which noise successive calls of a defence draw."""

from __future__ import annotations

import numpy as np
import pytest
from codes import raises_code
from numpy.typing import NDArray

from edgepure.methods import UniformSpec
from edgepure.rows.noise import NoiseSource, SeededNoise
from edgepure.rows.schedule import NoiseSchedule
from edgepure_calibration.attacks.defence_noise import NoisePolicy

PLAN = UniformSpec(t_star=20, steps=3).compile(NoiseSchedule.linear(), 48)


def drawn(source: NoiseSource, image: int = 0, vote: int = 0) -> NDArray[np.float32]:
    return source.for_image(PLAN, image, vote, None, (3, 4, 4)).row(1)


def test_fresh_noise_is_new_in_every_call() -> None:
    policy = NoisePolicy()
    first, second = drawn(policy.next()), drawn(policy.next())
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, drawn(NoisePolicy().next()))


def test_fresh_noise_with_a_seed_can_be_repeated() -> None:
    one, two, other = NoisePolicy(seed=7), NoisePolicy(seed=7), NoisePolicy(seed=8)
    for call in (1, 2):
        found = drawn(one.next(), image=2)
        np.testing.assert_array_equal(found, drawn(two.next(), image=2))
        np.testing.assert_array_equal(found, drawn(SeededNoise((7 << 32) + call), image=2))
        assert not np.array_equal(found, drawn(other.next(), image=2))


def test_fixed_noise_is_the_same_wherever_an_image_stands() -> None:
    policy = NoisePolicy("fixed", seed=2**63)
    for image in (0, 1, 9):
        np.testing.assert_array_equal(drawn(policy.next(), image), drawn(SeededNoise(2**63), 0))
    assert not np.array_equal(drawn(policy.next(), vote=1), drawn(policy.next(), vote=0))


def test_fixed_noise_without_a_seed_is_one_secret_for_the_process() -> None:
    one, other = NoisePolicy("fixed"), NoisePolicy("fixed")
    np.testing.assert_array_equal(drawn(one.next()), drawn(one.next()))
    assert not np.array_equal(drawn(one.next()), drawn(other.next()))


def test_it_says_what_it_is() -> None:
    assert [str(p) for p in (NoisePolicy(), NoisePolicy("fixed", 3))] == ["fresh, a secret seed", "fixed, seed 3"]


@pytest.mark.parametrize(
    ("name", "seed", "code"),
    [
        ("some", None, "E-noise-policy"),
        ("fresh", 2**32, "E-noise-policy-seed"),
        ("fixed", -1, "E-noise-policy-seed"),
    ],
)
def test_bad_policies(name: str, seed: int | None, code: str) -> None:
    with raises_code(code):
        NoisePolicy(name, seed)  # type: ignore[arg-type]
