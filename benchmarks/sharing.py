"""`python -m benchmarks.sharing`: what sharing the slots does to single requests, on a clock that calls move on.

First the seconds of a call are measured, by the number of rows that share it, and what images that enter together take
around their calls: mask, noise, answer, the loop (the least of many: that is the work, and not the rest of the
machine). Then requests come at random to a real `edgepure.Service`, whose calls and images take that long on a clock of
their own: so the numbers are the scheduler's, and the same in every run. ``alone`` is one request after another. Load 1
is what ``alone`` can do at most.
"""

from __future__ import annotations

import argparse
import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

import edgepure
from edgepure.files.atomic import write_text
from edgepure.methods.presets import Preset
from edgepure.purify.service import Service
from edgepure.purify.submissions import Submission
from edgepure.report.environment import environment

from .queueing import first_come

#: Seconds of a call by the images that share it.
Cost = Callable[[int], float]
LOADS = (0.3, 0.7, 1.0, 1.4)


class Simulation:
    """Images come at given times, whether or not others are done; how long each takes is noted.

    Args:
        purifier: its slots are used; what its step graph computes is left out.
        cost: of a call.
        around: seconds for images that enter together, outside of the calls; None: nothing.

    Attributes:
        rows: of every call.
    """

    def __init__(
        self,
        purifier: edgepure.Purifier,
        cost: Cost,
        preset: Any,
        votes: int | None = None,
        around: Cost | None = None,
    ) -> None:
        self.now, self._cost, self._due, self._next = 0.0, cost, iter(()), np.inf
        self.took: list[float] = []
        self.rows: list[int] = []
        self._inside, self._changed = 0, threading.Condition()
        self._image = np.full(purifier.image_shape, 0.5, np.float32)
        self.service = Service(purifier, preset, votes=votes, waiting=10_000)
        self._stepper = purifier.stepper(purifier.graphs.step_graph(purifier.preset(preset, votes)))
        self._stepper.step = self._step  # type: ignore[method-assign]
        lane = self.service._lanes[0]
        lane.pace.clock = lambda: self.now
        request = lane._request

        def entering(together: Sequence[Submission]) -> Any:
            if around is not None:
                self._pass(around(len(together)))
            return request(together)

        lane._request = entering  # type: ignore[method-assign]

    def _step(self, active: int) -> None:
        self.rows.append(active)
        self._pass(self._cost(active))

    def _pass(self, seconds: float) -> None:
        self.now += seconds
        while self._next <= self.now:
            self._come()

    def _come(self) -> None:
        came, self._next = self._next, next(self._due, np.inf)
        with self._changed:
            self._inside += 1

        def done(_: Future[Any]) -> None:
            self.took.append(self.now - came)
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

        self.service.submit(self._image, noise=0).add_done_callback(done)

    def run(self, due: np.ndarray) -> np.ndarray:
        """How long each image took."""
        self._due = iter(due.tolist())
        self._next = next(self._due)
        try:
            with self.service:
                while self._next < np.inf:
                    self.now = max(self.now, self._next)
                    self._come()
                    with self._changed:
                        assert self._changed.wait_for(lambda: not self._inside, 120)
        finally:
            del self._stepper.step  # the stepper is the purifier's
        return np.array(self.took)


def alone(due: np.ndarray, seconds: float) -> np.ndarray:
    """How long each image takes where one is purified after another."""
    return first_come(due, np.full(len(due), seconds), 1)


def arrivals(seconds: float, load: float, count: int, seed: int) -> np.ndarray:
    """At random, ``load`` images in the time of one."""
    return np.cumsum(np.random.default_rng(seed).exponential(seconds / load, count))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=edgepure.demo_bundle())
    parser.add_argument("--preset", help="default: the bundle's")
    parser.add_argument("--votes", default="1,3,5")
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=200, help="of each size, of which the fastest counts")
    parser.add_argument("--out", type=Path, default=Path("out/sharing.json"))
    asked = parser.parse_args()
    found: dict[str, dict[str, dict[str, float]]] = {}
    with edgepure.load(asked.bundle, threads=1, slots=asked.slots) as purifier:
        cost = measured(purifier, purifier.preset(asked.preset), asked.calls)
        print("ms of a call:", ", ".join(f"{1e3 * cost[rows]:.3f}" for rows in sorted(cost)), flush=True)
        presets = {votes: purifier.preset(asked.preset, int(votes)) for votes in asked.votes.split(",")}
        around = {votes: measured_around(purifier, preset, asked.calls // 4) for votes, preset in presets.items()}
        for votes, preset in presets.items():
            images = around[votes]
            print(f"ms around {votes} votes:", ", ".join(f"{1e3 * s:.3f}" for s in images.values()), flush=True)
            found[votes] = {str(load): ratios(purifier, cost, images, preset, load, asked) for load in LOADS}
            print(table(int(votes), found[votes]), flush=True)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    kept = {"machine": environment(), "preset": preset.method.method, "slots": asked.slots, "requests": asked.requests}
    result = {**kept, "seeds": asked.seeds, "ms_of_a_call": {n: 1e3 * s for n, s in cost.items()}}
    result["ms_around_images"] = {v: {n: 1e3 * s for n, s in images.items()} for v, images in around.items()}
    result["votes"] = found
    write_text(asked.out, json.dumps(result, indent=1) + "\n")


def measured(purifier: edgepure.Purifier, preset: Preset, calls: int) -> dict[int, float]:
    """Least seconds of a call by its size, with the noise and the loop around it."""
    cost = {}
    graph = purifier.engine(purifier.graphs.step_graph(preset))
    for rows in range(1, purifier.slots + 1):
        stepper = graph.stepper(purifier.slots)
        stepper.coeffs[:] = 0.0
        times = []
        for _ in range(calls):
            began = perf_counter()
            stepper.step(rows)
            times.append(perf_counter() - began)
        cost[rows] = min(times)
        stepper.close()
    return cost


def measured_around(purifier: edgepure.Purifier, preset: Preset, runs: int) -> dict[int, float]:
    """Least seconds outside of the calls, by how many images enter together."""
    stepper, inside = purifier.stepper(purifier.graphs.step_graph(preset)), 0.0
    step = stepper.step

    def timed(active: int) -> None:
        nonlocal inside
        began = perf_counter()
        step(active)
        inside += perf_counter() - began

    stepper.step = timed  # type: ignore[method-assign]
    found = {}
    try:
        for images in range(1, max(1, purifier.slots // preset.votes.count) + 1):
            batch, times = np.full((images, *purifier.image_shape), 0.5, np.float32), []
            for seed in range(runs):
                inside, began = 0.0, perf_counter()
                purifier.run(batch, preset, noise=seed)
                times.append(perf_counter() - began - inside)
            found[images] = min(times)
    finally:
        del stepper.step  # the stepper is the purifier's
    return found


def ratios(
    purifier: edgepure.Purifier,
    cost: dict[int, float],
    around: dict[int, float],
    preset: Preset,
    load: float,
    asked: argparse.Namespace,
) -> dict[str, float]:
    """Median over the seeds of mean, p50 and p99 over those of ``alone``."""
    calls, votes, slots = purifier.planner.unet_calls(preset), preset.votes.count, purifier.slots
    each = calls // votes
    seconds = around[1] + each * (votes // slots * cost[slots] + (cost[votes % slots] if votes % slots else 0.0))
    rows = []
    for seed in range(asked.seeds):
        due = arrivals(seconds, load, asked.requests, seed)
        shared = Simulation(purifier, cost.__getitem__, preset, around=around.__getitem__).run(due)
        lonely = alone(due, seconds)
        rows.append([f(shared) / f(lonely) for f in (np.mean, np.median, lambda took: np.percentile(took, 99))])
    mean, p50, p99 = np.median(rows, axis=0)
    return {"mean": float(mean), "p50": float(p50), "p99": float(p99)}


def table(votes: int, loads: dict[str, dict[str, float]]) -> str:
    """Markdown."""
    lines = [f"{votes} votes", "| load | mean / alone | p50 / alone | p99 / alone |", "|---|---|---|---|"]
    lines += [f"| {load} | {row['mean']:.2f} | {row['p50']:.2f} | {row['p99']:.2f} |" for load, row in loads.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
