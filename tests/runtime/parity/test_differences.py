"""The numbers of a comparison, on arrays whose differences are known."""

from __future__ import annotations

import numpy as np
import pytest

from edgepure.parity.checks import mask_check
from edgepure.parity.differences import MaskDifference, difference, mask_difference


def test_known_numbers() -> None:
    expected = np.array([[3.0, 0.0], [0.0, -4.0]], np.float32)
    found = expected + np.array([[0.0, 0.3], [0.0, -0.4]], np.float32)
    apart = difference(found, expected)
    assert apart.max_abs == pytest.approx(0.4, rel=1e-6)
    assert apart.mean_abs == pytest.approx(0.175, rel=1e-6)
    assert apart.relative_l2 == pytest.approx(0.5 / 5.0, rel=1e-6)
    assert apart.cosine == pytest.approx((9.0 + 17.6) / (5.0 * np.sqrt(9.0 + 0.09 + 19.36)), rel=1e-6)
    assert apart.scale == 4.0


def test_equal_opposite_and_scaled() -> None:
    x = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    assert difference(x, x) == difference(x.copy(), x)
    assert difference(x, x).relative_l2 == 0.0
    assert difference(2 * x, x).cosine == pytest.approx(1.0)
    assert difference(-x, x).cosine == pytest.approx(-1.0)
    assert difference(2 * x, x).relative_l2 == pytest.approx(1.0)


def test_a_reference_of_zeros_has_finite_numbers() -> None:
    zeros = np.zeros(4, np.float32)
    assert difference(zeros, zeros).cosine == 1.0
    near = difference(zeros + np.float32(1e-7), zeros)
    assert near.relative_l2 == pytest.approx(0.1, rel=1e-3)
    assert near.cosine == 0.0


def test_nan_stays_nan_and_small_differences_of_large_numbers_are_seen() -> None:
    x = np.ones(10, np.float32)
    broken = x.copy()
    broken[3] = np.nan
    apart = difference(broken, x)
    assert np.isnan(apart.max_abs) and np.isnan(apart.relative_l2)
    large = np.full(10, 16777216.0, np.float32)
    assert difference(large + np.float32(2.0), large).max_abs == 2.0


def test_masks() -> None:
    mask = np.zeros((1, 1, 4, 4), np.float32)
    mask[..., :2, :] = 1.0
    other = mask.copy()
    other[0, 0, 0, 0], other[0, 0, 3, 3] = 0.0, 1.0
    apart = mask_difference(other, mask)
    assert (apart.pixels, apart.of, apart.iou) == (2, 16, 7 / 9)
    assert mask_difference(mask, mask).iou == 1.0
    assert mask_difference(np.zeros_like(mask), np.zeros_like(mask)).iou == 1.0


def test_a_few_pixels_of_a_small_mask_prove_nothing() -> None:
    assert mask_check("graph mask", MaskDifference(0.9, 3, 128), 0.005)  # 2.3 %, of which 0.49 % are proven
    assert not mask_check("graph mask", MaskDifference(0.9, 4, 128), 0.005)
    assert not mask_check("graph mask", MaskDifference(0.9, 240, 12_800), 0.005)
    assert not mask_check("graph mask", MaskDifference(1.0, 0, 128), 0.005, "a pixel away from the cut differs")
