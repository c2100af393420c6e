"""A tile's noise is the frame's, wherever the tile lies."""

from __future__ import annotations

import numpy as np
import pytest

from edgepure.methods import UniformSpec
from edgepure.rows.cut_noise import cut_noise
from edgepure.rows.noise import RowNoise, SeededNoise
from edgepure.rows.replay import Replay
from edgepure.rows.schedule import NoiseSchedule

FRAME = (3, 11, 13)  # lines do not begin at multiples of four
PLAN = UniformSpec(t_star=40, sampler="sde", sde_step=0.01).compile(NoiseSchedule.linear(), 100)
PLACES = [(0, 0, 11, 13), (0, 0, 1, 1), (10, 12, 1, 1), (3, 5, 4, 7), (3, 6, 4, 7), (7, 4, 4, 7), (2, 1, 6, 12)]


def replayed() -> RowNoise:
    def recording(draw: object, image: int) -> np.ndarray:
        return np.random.default_rng([draw.index, image]).standard_normal(FRAME)  # type: ignore[attr-defined]

    return Replay(recording).for_image(PLAN, 2, 0, None, FRAME)  # type: ignore[arg-type]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("key", [5, 2**200, None])
def test_a_tile_gets_what_lies_under_it(place: tuple[int, int, int, int], key: int | None) -> None:
    whole = replayed() if key is None else SeededNoise(key).for_image(PLAN, 2, 1, None, FRAME)
    top, left, height, width = place
    part = cut_noise(whole, FRAME, (top, left), (height, width))
    under = (slice(None), slice(top, top + height), slice(left, left + width))
    assert np.array_equal(part.row(1), whole.row(1)[under])
    assert np.array_equal(part.closing(), whole.closing()[under])


def test_the_second_noise_and_the_probe_are_cut_too() -> None:
    plan = UniformSpec(t_star=40, steps=3, variance="learned").compile(NoiseSchedule.linear(), 100)
    whole = SeededNoise(5).for_image(plan, 0, 0, None, FRAME)
    assert np.array_equal(cut_noise(whole, FRAME, (1, 2), (3, 4)).out(0), whole.out(0)[:, 1:4, 2:6])
    probe = SeededNoise(5).for_image(plan, 0, 0, None, FRAME, probe=True)
    cut = cut_noise(probe, FRAME, (1, 2), (3, 4)).row(0)
    assert np.array_equal(cut, probe.row(0)[:, 1:4, 2:6]) and not np.array_equal(cut, whole.row(0)[:, 1:4, 2:6])
