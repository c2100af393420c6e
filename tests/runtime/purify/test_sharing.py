"""Who enters the slots beside whom: a service on a clock of its own, which calls of known cost move on.

The arithmetic is left out; the scheduler is the real one. Times are in units of the cost: what matters is that nobody
waits longer than with one image after another, and that calls are shared where that makes them cheaper.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest

import edgepure
from benchmarks.sharing import Cost, Simulation, alone, arrivals
from edgepure.purify.pace import Pace

#: From calls that cost as much however many rows share them, as on a large GPU, to calls in which a row more costs more
#: than alone, as where a cache is left.
COSTS: dict[str, Cost] = {
    "flat": lambda rows: 1.0,
    "affine": lambda rows: 1.0 + 0.25 * rows,
    "nearly linear": lambda rows: 0.2 + rows,
    "linear": lambda rows: float(rows),
    "worse than linear": lambda rows: rows * (1.0 + 0.02 * rows),
}
STEPS, SLOTS, REQUESTS = 6, 8, 80
PRESET = {"method": {"method": "uniform", "t_star": 60, "steps": STEPS}}


@pytest.fixture(scope="module")
def purifier() -> Iterator[edgepure.Purifier]:
    with edgepure.load(edgepure.demo_bundle(), threads=1, slots=SLOTS) as opened:
        yield opened


@pytest.mark.parametrize("votes", [1, 5])
@pytest.mark.parametrize("cost", COSTS)
def test_sharing_does_not_lose_against_one_at_a_time(purifier: edgepure.Purifier, cost: str, votes: int) -> None:
    seconds = STEPS * COSTS[cost](votes)
    for load in (1.0, 1.4):
        due = arrivals(seconds, load, REQUESTS, seed=votes)
        shared, lonely = Simulation(purifier, COSTS[cost], PRESET, votes).run(due), alone(due, seconds)
        assert len(shared) == REQUESTS
        for measure in (np.mean, np.median, lambda took: np.percentile(took, 99)):
            assert measure(shared) <= 1.05 * measure(lonely)
        if cost in ("flat", "affine"):  # where it is cheap, calls are shared
            assert shared.mean() <= 0.65 * lonely.mean()


def test_votes_of_an_image_stay_together_where_sharing_is_dear(
    purifier: edgepure.Purifier,
) -> None:
    simulation = Simulation(purifier, COSTS["worse than linear"], PRESET, 5)
    simulation.run(arrivals(STEPS * COSTS["worse than linear"](5), 1.4, REQUESTS, seed=0))
    assert simulation.rows.count(5) > 0.9 * len(simulation.rows)


def batches(due: np.ndarray, cost: Cost, around: Cost) -> np.ndarray:
    """How long each image takes where all that wait enter once those before them are done, as other servers batch."""
    now, first, took = 0.0, 0, np.zeros(len(due))
    while first < len(due):
        now = max(now, due[first])
        count = min(int((due[first:] <= now).sum()), SLOTS)
        now += around(count) + STEPS * cost(count)
        took[first : first + count] = now - due[first : first + count]
        first += count
    return took


@pytest.mark.parametrize("load", [0.8, 1.0, 1.3])
def test_where_much_is_done_around_the_calls_sharing_does_not_lose_against_batches(
    purifier: edgepure.Purifier, load: float
) -> None:
    """Small networks: mask, noise and answer of an image take longer than its calls, and those inside wait for them."""

    def cost(rows: int) -> float:
        return 0.13 + 0.09 * rows

    def around(images: int) -> float:
        return 0.6 + 0.73 * images

    due = arrivals(STEPS * cost(1) + around(1), load, 400, seed=0)
    shared = Simulation(purifier, cost, PRESET, around=around).run(due)
    together = batches(due, cost, around)
    for measure in (np.mean, np.median, lambda took: np.percentile(took, 99)):
        assert measure(shared) <= 1.15 * measure(together)


def test_a_size_that_was_not_seen_for_long_is_tried_again() -> None:
    pace, now = Pace(calls=6), 0.0
    pace.clock = lambda: now
    pace.start()
    for rows in (5, 8, 3) * 10:
        now += rows
        pace.ticked(rows, rows)
    assert not pace.joins(3, inside=1, waiting=100), "it costs as much a row"
    for _ in range(1001):
        now += 5.0
        pace.ticked(5, 5.0)
    assert pace.joins(3, inside=1, waiting=100)


def test_what_is_done_around_a_call_counts_too() -> None:
    """Calls are measured while the machine does other things, at random; what that takes is saved by sharing."""
    random, pace = np.random.default_rng(0), Pace(calls=6)
    for rows in random.integers(1, 9, 2000):
        pace.ticked(int(rows), rows + random.exponential(1.0))
    assert pace.joins(1, inside=2, waiting=2) and pace.joins(1, inside=7, waiting=8)
    for rows in random.integers(1, 9, 2000):
        pace.ticked(int(rows), rows + random.exponential(0.1))
    assert not pace.joins(1, inside=7, waiting=8)


def test_what_images_cost_that_enter_says_nothing_of_sharing() -> None:
    """They enter where many rows are: in the time between two calls that looks like the price of a row."""
    random, now = np.random.default_rng(0), 0.0
    pace = Pace(calls=6)
    pace.clock = lambda: now
    pace.start()
    for rows in random.integers(1, 9, 2000):
        now += 1.0 + rows + 3.0 * rows  # three for every image that has entered
        pace.ticked(int(rows), 1.0 + rows)
    assert pace.joins(1, inside=1, waiting=1)
    assert pace.seconds(0) > 6 * 4.0, "but it is a part of what an image takes"


def test_a_process_that_was_stopped_did_not_become_slow() -> None:
    pace, now = Pace(calls=6), 0.0
    pace.clock = lambda: now
    pace.start()
    for seconds in (2.0, 2.0, 2.0, 2.0, 10_000.0):
        now += seconds
        pace.ticked(2, seconds)
    assert pace.seconds(0) < 8.0, "six calls of a second a row"
    for _ in range(100):  # an engine that did become slow
        now += 20.0
        pace.ticked(2, 20.0)
    assert pace.seconds(0) == pytest.approx(60.0, rel=0.05)


def saturated(pace: Pace, now: list[float], cost: Cost, rounds: int) -> list[int]:
    """How many enter together where more always wait, and all of them end together."""
    sizes = []
    for _ in range(rounds):
        inside = 1
        while inside < SLOTS and pace.joins(1, inside, waiting=2 * SLOTS - inside):
            inside += 1
        for _ in range(STEPS):
            now[0] += cost(inside)
            pace.ticked(inside, cost(inside))
        sizes.append(inside)
    return sizes


@pytest.mark.parametrize("known", [1, 2, 3, SLOTS])
@pytest.mark.parametrize("cost", ["flat", "worse than linear"])
def test_one_size_for_ever_is_left_again(cost: str, known: int) -> None:
    """After stalls that said otherwise, or calls that never differed."""
    now, pace = [0.0], Pace(calls=STEPS)
    pace.clock = lambda: now[0]
    pace.start()
    for _ in range(1500):
        now[0] += COSTS[cost](known)
        pace.ticked(known, COSTS[cost](known))
    mean = np.mean(saturated(pace, now, COSTS[cost], 1000)[-300:])
    assert mean > 0.75 * SLOTS if cost == "flat" else mean < 2.5


def test_a_slow_start_does_not_refuse_everybody_for_ever(purifier: edgepure.Purifier) -> None:
    """The first call may take as long as a compiler does; those who give a deadline are let in again after a while."""
    image = np.full((1, 16, 16), 0.5, np.float32)
    with edgepure.Service(purifier, PRESET) as service:
        service._lanes[0].pace.row = 1e4  # seconds
        refused = 0
        while True:
            try:
                service.submit(image, deadline=time.monotonic() + 60.0).result(60)
                break
            except edgepure.OverdueError as error:
                refused += error.code == "E-deadline-short"
        assert 10 < refused < 100
