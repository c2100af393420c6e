"""Tasks side by side: all are done, progress is weighed, the first failure ends the others."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from models import WEIGHTS
from workers import Pair, Report, Workers

from edgepure.demo import demo_bundle


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with Workers(demo_bundle(), WEIGHTS, 2) as pairs:
        yield pairs


def test_results_are_by_name(workers: Workers) -> None:
    found = workers.each({name: 1.0 for name in "abcde"}, lambda name, pair, report: name.upper())
    assert found == {name: name.upper() for name in "abcde"}


def test_two_tasks_never_share_a_pair(workers: Workers) -> None:
    together = threading.Barrier(2, timeout=30)
    pairs: list[Pair] = []

    def work(name: str, pair: Pair, report: Report) -> None:
        pairs.append(pair)
        together.wait()  # both tasks are running now

    workers.each({"a": 1.0, "b": 1.0}, work)
    assert pairs[0] is not pairs[1]


def test_progress_is_weighed_by_cost(workers: Workers) -> None:
    shares: list[float] = []

    def work(name: str, pair: Pair, report: Report) -> None:
        report(0.5)
        report(1.0)

    workers.each({"small": 1.0, "large": 3.0}, work, shares.append)
    assert len(shares) == 4
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1.0)
    assert {round(b - a, 6) for a, b in zip([0.0, *shares], shares, strict=False)} <= {0.125, 0.375}


def test_a_failure_ends_the_others(workers: Workers) -> None:
    failed = threading.Event()

    def work(name: str, pair: Pair, report: Report) -> None:
        if name == "bad":
            failed.set()
            raise ValueError("broken")
        assert failed.wait(timeout=30)
        while True:  # ends when the failure of the other task is known
            report(0.1)

    with pytest.raises(ValueError, match="broken"):
        workers.each({"good": 1.0, "bad": 1.0, "waiting": 1.0}, work)
    # the pairs are free again
    assert workers.each({"a": 1.0, "b": 1.0}, lambda name, pair, report: report(1.0)) == {"a": None, "b": None}
