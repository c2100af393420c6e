"""Timestep grids that no golden covers."""

from __future__ import annotations

from itertools import pairwise

import pytest
from codes import raises_code
from hypothesis import assume, given
from hypothesis import strategies as st

from edgepure.rows import grids


@given(t_star=st.integers(1, 1000), steps=st.integers(1, 1000))
def test_even_grid(t_star: int, steps: int) -> None:
    assume(steps <= t_star)
    grid = grids.even(t_star, steps)
    assert len(grid) == steps
    assert grid[0] == t_star - 1
    assert all(a > b for a, b in pairwise(grid))
    assert grid[-1] >= 0


@given(low=st.integers(0, 500), width=st.integers(1, 500), steps=st.integers(1, 500))
def test_grid_between(low: int, width: int, steps: int) -> None:
    assume(steps <= width)
    grid = grids.between(low + width, low, steps)
    assert len(grid) == steps
    assert grid[0] == low + width
    assert grid[-1] > low
    assert all(a > b for a, b in pairwise(grid))


def test_explicit_grid_is_checked() -> None:
    assert grids.explicit([90, 40, 0], 100) == [90, 40, 0]
    for values, code, text in (
        ([], "E-grid-empty", "at least one"),
        ([100, 40], "E-grid-range", "100"),
        ([40, -1], "E-grid-range", "-1"),
        ([40, 40], "E-grid-order", "40"),
        ([10, 20], "E-grid-order", "20"),
    ):
        with raises_code(code) as caught:
            grids.explicit(values, 100)
        assert text in str(caught.value)


@pytest.mark.parametrize("respacing", ["", "ddim", "ddimx", "0", "10,,5", "-3", "2.5"])
def test_respacing_that_is_not_understood(respacing: str) -> None:
    with raises_code("E-grid-respacing"):
        grids.respaced(1000, respacing)


def test_respacing_that_does_not_exist() -> None:
    with raises_code("E-grid-stride"):
        grids.respaced(1000, "ddim999")


@given(counts=st.lists(st.integers(1, 40), min_size=1, max_size=5))
def test_respaced_sections(counts: list[int]) -> None:
    kept = grids.respaced(1000, ",".join(map(str, counts)))
    assert len(kept) == sum(counts)
    assert kept[-1] == 0
    assert all(a > b for a, b in pairwise(kept))
