"""`python -m benchmarks.service`: latency of single requests under load, of three ways to serve them.

Requests arrive at random (Poisson), whether or not earlier ones have been answered. ``alone``: one after another.
``batches``: whoever waits, up to the number of slots, is run to the end as one batch, then the next ones. ``service``:
`edgepure.Service`, where an image enters the next free slot. Load 1 is what ``alone`` can do at most, measured before
each round. Medians over the rounds. Times mean something only on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import edgepure
from edgepure.demo import demo_images
from edgepure.files.atomic import write_text
from edgepure.methods.presets import Preset

from .__main__ import machine

Submit = Callable[[np.ndarray], "Future[Any]"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", help="default: the bundle's")
    parser.add_argument("--votes", type=int, help="default: the preset's")
    parser.add_argument("--requests", type=int, default=400, help="of each way, load and round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--loads", default="0.3,0.7,1.0,1.4")
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--out", type=Path, default=Path("out/service.json"))
    options = parser.parse_args()
    images = demo_images().adversarial
    with edgepure.load(edgepure.demo_bundle(), slots=options.slots) as purifier:
        preset = purifier.preset(options.preset, options.votes)
        purifier.run(images, preset)  # what is opened and allocated once is
        loads, rounds = [float(word) for word in options.loads.split(",")], []
        for seed in range(options.rounds):
            rounds.append(one_round(purifier, images, preset, options.requests, seed, loads))
            found = medians(rounds)
            print(f"round {seed + 1}\n{table(found)}", flush=True)
            options.out.parent.mkdir(parents=True, exist_ok=True)
            result = {
                "machine": machine(),
                "preset": preset.model_dump(mode="json", exclude_none=True),
                "slots": options.slots,
                "requests": options.requests,
                "rounds": len(rounds),
                "loads": found,
            }
            write_text(options.out, json.dumps(result, indent=1) + "\n")


def medians(rounds: list[dict[float, dict[str, dict[str, float]]]]) -> dict[float, dict[str, dict[str, float]]]:
    """Of every number, over the rounds."""
    return {
        load: {
            way: {key: float(np.median([r[load][way][key] for r in rounds])) for key in ("p50", "p99", "a_second")}
            for way in WAYS
        }
        for load in rounds[0]
    }


def one_round(
    purifier: edgepure.Purifier, images: np.ndarray, preset: Preset, requests: int, seed: int, loads: list[float]
) -> dict[float, dict[str, dict[str, float]]]:
    """Every way at every load, one after another."""
    began = time.perf_counter()
    for image in images:
        purifier.run(image[None], preset)
    capacity = len(images) / (time.perf_counter() - began)
    found: dict[float, dict[str, dict[str, float]]] = {}
    for load in loads:
        found[load] = {}
        for name, way in WAYS.items():
            with way(purifier, preset) as submit:
                submit(images[0]).result()
                found[load][name] = measured(submit, images, load * capacity, requests, seed)
    return found


def measured(submit: Submit, images: np.ndarray, rate: float, requests: int, seed: int) -> dict[str, float]:
    """Percentiles of the milliseconds from a request's arrival to its answer."""
    rng = np.random.default_rng(seed)
    arrivals = np.cumsum(rng.exponential(1.0 / rate, requests))
    answered = np.zeros(requests)
    begin = time.perf_counter()
    futures = []
    for index, arrival in enumerate(arrivals):
        time.sleep(max(0.0, begin + arrival - time.perf_counter()))
        future = submit(images[index % len(images)])
        future.add_done_callback(partial(_note, answered, index, begin))
        futures.append(future)
    for future in futures:
        future.result()
    p50, p99 = np.percentile(1e3 * (answered - arrivals), (50, 99))
    return {"p50": float(p50), "p99": float(p99), "a_second": requests / float(answered.max())}


def _note(answered: np.ndarray, index: int, begin: float, _: Future[Any]) -> None:
    answered[index] = time.perf_counter() - begin


def _batches(size: int | None) -> Callable[[edgepure.Purifier, Preset], Any]:
    """A thread that runs whoever waits as one batch, of at most ``size`` images; None: as many as there are slots."""

    @contextmanager
    def way(purifier: edgepure.Purifier, preset: Preset) -> Iterator[Submit]:
        waiting: queue.SimpleQueue[tuple[np.ndarray, Future[Any]] | None] = queue.SimpleQueue()

        def work() -> None:
            while (first := waiting.get()) is not None:
                batch = [first]
                while len(batch) < (size or purifier.slots) and not waiting.empty():
                    more = waiting.get()
                    if more is None:
                        waiting.put(None)
                        break
                    batch.append(more)
                results = purifier.run(np.stack([image for image, _ in batch]), preset)
                for (_, future), result in zip(batch, results, strict=True):
                    future.set_result(result)

        def submit(image: np.ndarray) -> Future[Any]:
            future: Future[Any] = Future()
            waiting.put((image, future))
            return future

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield submit
        finally:
            waiting.put(None)
            thread.join()

    return way


@contextmanager
def _service(purifier: edgepure.Purifier, preset: Preset) -> Iterator[Submit]:
    with edgepure.Service(purifier, preset, waiting=100_000) as service:
        yield service.submit


WAYS: dict[str, Callable[[edgepure.Purifier, Preset], Any]] = {
    "alone": _batches(1),
    "batches": _batches(None),
    "service": _service,
}


def table(found: dict[float, dict[str, dict[str, float]]]) -> str:
    """The Markdown table of the documents."""
    lines = ["| load | " + " | ".join(f"{way}: p50, p99 (ms)" for way in WAYS) + " |", "|---" * (len(WAYS) + 1) + "|"]
    for load, ways in found.items():
        cells = (f"{ways[way]['p50']:.1f}, {ways[way]['p99']:.1f}" for way in WAYS)
        lines.append(f"| {load} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
