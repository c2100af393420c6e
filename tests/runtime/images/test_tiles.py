"""Tiles and windows: they cover the frame, overlap as asked, and add up to one."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from codes import raises_code
from hypothesis import given
from hypothesis import strategies as st

from edgepure.images.frames import fitted, load_frame
from edgepure.images.tiles import Tiling

sides = st.tuples(st.integers(1, 90), st.integers(1, 30))


@given(sides, sides, st.floats(0.0, 0.75))
def test_windows_add_up_to_one_everywhere(down: tuple[int, int], across: tuple[int, int], overlap: float) -> None:
    frame = (max(down), max(across))
    tile = (min(*down, 30), min(*across, 30))
    tiling = Tiling(frame, tile, overlap)
    total = np.zeros(frame)
    for i in range(len(tiling)):
        window = tiling.window(i)
        assert window.shape == tile and window.min() >= 0.0
        tiling.cut(total, i)[...] += window
    np.testing.assert_allclose(total, 1.0, atol=1e-6)
    for starts, side, n in zip(tiling.starts, tile, frame, strict=True):
        assert starts[0] == 0 and starts[-1] == n - side
        shared = [a + side - b for a, b in itertools.pairwise(starts)]
        assert all(v >= min(math.ceil(overlap * side), side - 1) for v in shared)
        assert not shared or max(shared) - min(shared) <= 1, "spread evenly"


def test_a_frame_of_the_size_of_a_tile_is_one_tile_with_weight_one() -> None:
    tiling = Tiling((16, 12), (16, 12), 0.5)
    assert tiling.grid == (1, 1)
    assert np.array_equal(tiling.window(0), np.ones((16, 12), np.float32))


def test_the_outer_quarter_of_an_overlap_does_not_count_except_at_the_border_of_the_frame() -> None:
    tiling = Tiling((16, 28), (16, 16), 0.25)  # two tiles that share 4 columns
    first, second = tiling.window(0)[0], tiling.window(1)[0]
    assert first[-1] == 0.0 and second[0] == 0.0
    assert first[0] == 1.0 and second[-1] == 1.0
    assert 0.0 < first[-2] < first[-3] < 1.0


@pytest.mark.parametrize("pad", ["reflect", "black"])
def test_a_small_frame_is_padded_in_the_middle(pad: str) -> None:
    frame = np.arange(1, 16, dtype=np.float32).reshape(1, 3, 5) / 16
    padded, inner = fitted(frame, (8, 4), pad)  # type: ignore[arg-type]
    assert padded.shape == (1, 8, 5)
    assert np.array_equal(padded[inner], frame)
    assert np.array_equal(padded[0, 1], frame[0, 1] if pad == "reflect" else np.zeros(5))


def test_a_small_frame_is_refused_unless_padding_is_asked_for() -> None:
    with raises_code("E-frame-size") as found:
        fitted(np.zeros((1, 3, 5), np.float32), (4, 4), "no")
    assert "4 x 4" in str(found.value), "what is long enough is not asked to be longer"
    with raises_code("E-config-option"):
        fitted(np.zeros((1, 3, 5), np.float32), (4, 4), "yes")  # type: ignore[arg-type]


@pytest.mark.parametrize(("size", "shape"), [(None, (30, 40)), (15, (15, 20)), ((10, 50), (10, 50)), ([6, 8], (6, 8))])
def test_size_is_the_shorter_side_or_both(size: object, shape: tuple[int, int]) -> None:
    frame = np.zeros((30, 40, 3), np.uint8)
    assert load_frame(frame, 3, size=size)[1].shape == (3, *shape)  # type: ignore[arg-type]


def test_what_is_no_frame_is_refused() -> None:
    with raises_code("E-frame-count"):
        load_frame(np.zeros((2, 30, 40, 3), np.uint8), 3)
    for size in (0, True, (3,) * 3, "big", (3, -1)):
        with raises_code("E-config-option"):
            load_frame(np.zeros((30, 40, 3), np.uint8), 3, size=size)  # type: ignore[arg-type]
    with raises_code("E-image-shape"):
        load_frame(np.zeros((30, 40, 3), np.uint8), 1)


def test_bgr_is_turned_round() -> None:
    frame = np.zeros((4, 5, 3), np.uint8)
    frame[..., 0] = 255  # blue
    assert load_frame(frame, 3, order="bgr")[1][:, 0, 0].tolist() == [0.0, 0.0, 1.0]
