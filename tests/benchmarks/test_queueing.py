"""The queue without losses, beside what is known of queues."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.queueing import lossless


def test_one_server_with_exponential_lengths() -> None:
    """M/M/1: the time in it is exponential with the rate capacity - arrivals."""
    middles = (np.arange(4000) + 0.5) / 4000
    found = lossless(50.0, 100.0, 1, list(-np.log1p(-middles)))
    assert found["p50"] == pytest.approx(1e3 * math.log(2.0) / 50.0, rel=0.03)
    assert found["p99"] == pytest.approx(1e3 * math.log(100.0) / 50.0, rel=0.05)


def test_under_hardly_any_load_only_the_work_takes_time() -> None:
    found = lossless(0.01, 10.0, 2, [1.0, 1.0, 3.0])  # 2 of 10 a second: 200 ms on average
    assert found == {"p50": pytest.approx(120.0), "p99": pytest.approx(360.0)}


def test_equal_lengths_wait_less_than_unequal_ones() -> None:
    assert lossless(7.0, 10.0, 2, [1.0])["p99"] < lossless(7.0, 10.0, 2, [0.2, 1.8])["p99"]
