"""Medians and ratios; how fast anything is, is never tested."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import pytest
from codes import raises_code

import edgepure
from edgepure import measure
from edgepure.measure import SideBySide, bench, interleaved, median_time


def test_the_ratio_is_taken_within_each_round() -> None:
    # a busy second round slows both down: the ratio of the medians would be 3 / 2
    times = SideBySide({"a": (2.0, 30.0, 3.0), "b": (1.0, 15.0, 2.0)})
    assert times.median("a") == 3.0
    assert times.ratio("a", "b") == 2.0


def test_rounds_alternate_their_order_and_warm_up_first() -> None:
    calls: list[str] = []
    found = interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, repeats=3, warmup=1)
    assert "".join(calls) == "ab" + "ab" + "ba" + "ab"
    assert {name: len(times) for name, times in found.times.items()} == {"a": 3, "b": 3}


def test_seconds_are_what_the_clock_says(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([0.0, 5.0, 10.0, 11.0, 20.0, 22.0])
    monkeypatch.setattr(measure, "perf_counter", lambda: next(ticks))
    assert median_time(lambda: None, repeats=3, warmup=4) == 2.0


def test_nothing_to_measure_is_refused() -> None:
    with raises_code("E-bench-option"):
        interleaved({}, repeats=1)
    with raises_code("E-bench-option"):
        median_time(lambda: None, repeats=0)


def test_a_bench_reports_the_plan_that_it_ran(tiny_bundle: Path) -> None:
    shares: list[float] = []
    with edgepure.load(tiny_bundle, threads=1, slots=4) as purifier:
        found = bench(
            purifier, "voted", batches=(1, 4), repeats=2, on_progress=lambda share, words: shares.append(share)
        )
        assert (found.preset, found.unet_calls, found.rows_timed) == ("voted", 12, 4)
        assert (found.provider, found.engine) == ("cpu", f"ONNX Runtime {onnxruntime.__version__}")
        assert [speed.batch for speed in found.speeds] == [1, 4]
        assert all(speed.loop_ms is not None and speed.loop_ms > 0.0 for speed in found.speeds)
        long = purifier.preset().model_copy(update={"method": edgepure.UniformSpec(t_star=400)})
        short = bench(purifier, long, batches=(1,), repeats=1)
        assert (short.unet_calls, short.rows_timed) == (400, measure.MOST_ROWS)
        with raises_code("E-bench-batch"):
            bench(purifier, batches=(5,))
    assert shares == sorted(shares) and shares[-1] == 1.0


def test_a_bundle_without_a_bare_unet_cannot_be_compared(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with edgepure.load(tiny_bundle, threads=1) as purifier:
        graphs = {k: v for k, v in purifier.bundle.manifest.graphs.items() if k != "unet"}
        object.__setattr__(purifier.bundle, "manifest", purifier.bundle.manifest.model_copy(update={"graphs": graphs}))
        with raises_code("E-bench-graph"):
            bench(purifier, batches=(1,), repeats=1)
