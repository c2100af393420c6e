"""What is measured of lanes, and that what is under way ends; how fast anything is, is never tested."""

from __future__ import annotations

from pathlib import Path

import pytest
from codes import raises_code

from edgepure import Bundle, lane_rates
from edgepure import measure_lanes as module


def test_every_number_of_lanes_answers(tiny_bundle: Path) -> None:
    shares: list[float] = []
    found = lane_rates(
        Bundle.open(tiny_bundle),
        "uniform",
        lanes=(2, 1),
        slots=2,
        threads=1,
        seconds=0.1,
        repeats=2,
        on_progress=lambda share, words: shares.append(share),
    )
    assert [(rate.lanes, rate.threads) for rate in found] == [(2, 1), (1, 1)]
    assert all(rate.images_per_second > 0.0 and rate.alone_ms > 0.0 for rate in found)
    assert shares == [0.5, 1.0]


def test_cores_are_shared_out_unless_threads_are_given(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "usable_cores", lambda: 4)
    found = lane_rates(Bundle.open(tiny_bundle), "uniform", lanes=(1, 3), slots=1, seconds=0.05, repeats=1)
    assert [rate.threads for rate in found] == [4, 1]


def test_nothing_to_measure_is_refused(tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    for wrong in ({"lanes": ()}, {"repeats": 0}, {"seconds": 0.0}):
        with raises_code("E-bench-option"):
            lane_rates(bundle, **wrong)
    for wrong in (100, 0, True, "2"):
        with raises_code("E-config-lanes"):
            lane_rates(bundle, lanes=(1, wrong))
    with raises_code("E-preset-unknown"):
        lane_rates(bundle, "none")
