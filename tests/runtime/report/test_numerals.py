"""Numbers as people read them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepure.report.numerals import number, percent


@pytest.mark.parametrize(
    ("share", "shown"),
    [
        (0.0, "0"),
        (1.2e-6, "0.00012"),
        (0.0251, "2.5"),
        (0.5, "50"),
        (0.996, "100"),
        (0.999999, "100"),
        (1.0, "100"),
        (3.4, "340"),
        (-0.012, "-1.2"),
        (math.inf, "inf"),
    ],
)
def test_percent(share: float, shown: str) -> None:
    assert percent(share) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0, "0"), (1.25, "1.25"), (999.6, "1000"), (1234.5, "1234"), (0.00123, "0.00123"), (1.23e-5, "1.23e-05")],
)
def test_number(value: float, shown: str) -> None:
    assert number(value) == shown


@given(st.floats(1e-6, 1e4))
def test_percent_is_near_and_has_no_exponent(share: float) -> None:
    shown = percent(share)
    assert "e" not in shown and float(shown) == pytest.approx(100.0 * share, rel=0.051)
