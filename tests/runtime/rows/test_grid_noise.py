"""Noise on the grid of 8-bit levels: the distribution, exactly, and the same whoever draws it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgepure.methods import SmoothSpec
from edgepure.rows.grid_noise import LEVELS, grid_noise, levels_of, noised_input
from edgepure.rows.noise import SeededNoise, StreamNoise
from edgepure.rows.philox import Stream, philox4x32
from edgepure.rows.schedule import NoiseSchedule

PLAN = SmoothSpec(steps=3).compile(NoiseSchedule.linear(), 48)
SHAPE = (3, 5, 5)


def stream(seed: int = 5, image: int = 2, vote: int = 7, shape: tuple[int, ...] = SHAPE) -> StreamNoise:
    found = SeededNoise(seed).for_image(PLAN, image, vote, None, shape)
    assert isinstance(found, StreamNoise)
    return found


def one(seed: int, image: int, vote: int, element: int, sigma: float) -> int:
    """One value in whole numbers of Python, from the description."""
    counter = np.array([element // 2, 0, image, (int(Stream.GRID) << 24) | vote], np.uint64)[:, None]
    words = [int(w[0]) for w in philox4x32(counter, (seed & 0xFFFFFFFF, seed >> 32))]
    drawn = (words[0] << 32 | words[1]) if element % 2 == 0 else (words[2] << 32 | words[3])
    size = 0
    while (drawn >> 1) < int(2.0**63 * math.erfc((size + 0.5) / (LEVELS * sigma * math.sqrt(2.0)))):
        size += 1
    return -size if drawn & 1 else size


@pytest.mark.parametrize("sigma", [0.001, 0.12, 1.0])
def test_every_value_follows_from_key_image_vote_and_element(sigma: float) -> None:
    noise = grid_noise(stream(seed=2**40 + 3), sigma, SHAPE).ravel()
    assert noise.tolist() == [one(2**40 + 3, 2, 7, element, sigma) for element in range(noise.size)]
    assert np.array_equal(
        grid_noise(stream(shape=(2, 3)), sigma, (2, 3)).ravel(), grid_noise(stream(), sigma, SHAPE).ravel()[:6]
    )


def test_it_is_a_rounded_normal() -> None:
    sigma, shape = 0.02, (4, 256, 256)
    noise = grid_noise(stream(shape=shape), sigma, shape)
    scale = LEVELS * sigma * math.sqrt(2.0)
    bound = 4.5 / math.sqrt(noise.size)
    for k in range(-12, 13):
        share = 0.5 * (math.erf((k + 0.5) / scale) - math.erf((k - 0.5) / scale))
        assert abs((noise == k).mean() - share) < bound * math.sqrt(share) + 1e-9
    assert not np.array_equal(noise, grid_noise(stream(vote=8, shape=shape), sigma, shape))


def test_levels_of_images() -> None:
    levels = np.arange(256).reshape(1, 16, 16)
    image = (levels / 255.0).astype(np.float32)
    assert np.array_equal(levels_of(image), levels)
    assert np.array_equal(levels_of(levels.astype(np.float32) / np.float32(255.0)), levels)
    assert levels_of(image + np.float32(2e-4)) is None


def test_what_enters_the_slots_depends_on_the_noised_level_only() -> None:
    """Two images whose difference is made up for by the noise enter the network as the same bits."""
    levels = np.random.default_rng(0).integers(0, 256, SHAPE)
    noised, later = noised_input(levels, stream(), 0.25)
    total = levels + grid_noise(stream(), 0.25, SHAPE)
    assert np.array_equal(noised, (total * (2.0 / 255.0) - 1.0).astype(np.float32))
    assert not later.row(0).any()
    assert np.array_equal(later.row(1), stream().row(1)) and later.row(1).any()
    assert np.array_equal(later.closing(), stream().closing())
