"""`python -m benchmarks.ray_workers`: one machine's cores as workers of a Ray cluster, two of them against one.

The digits, again and again, classified with their own preset by ``edgepure classify --ray``: one engine a worker, one
thread an engine. What is timed begins with the first part that comes back, so that the start of the processes is
left out, and is given beside it. Needs ``ray[data]``, and cores that do nothing else.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import ray

import edgepure
from edgepure.cli.options import RayOptions
from edgepure.cli.sources import find_sources
from edgepure.cli.spread import Task, spread
from edgepure.files.atomic import write_text
from edgepure.report.environment import environment

#: Images of a part.
PART = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", default="1,2")
    parser.add_argument("--parts", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("out/ray.json"))
    asked = parser.parse_args()
    counts = [int(word) for word in asked.workers.split(",")]
    ray.init(num_cpus=max(counts), log_to_driver=False, include_dashboard=False)
    found: dict[int, list[dict[str, float]]] = {count: [] for count in counts}
    with tempfile.TemporaryDirectory() as folder:
        images = edgepure.demo_images().adversarial
        np.save(Path(folder) / "many.npy", np.resize(images, (asked.parts * PART, *images.shape[1:])))
        for number in range(asked.rounds):
            for count in counts if number % 2 == 0 else reversed(counts):
                found[count].append(one(Path(folder) / "many.npy", count))
                print(f"{count} workers: {found[count][-1]}", flush=True)
    ray.shutdown()
    medians = {n: {key: statistics.median(r[key] for r in rounds) for key in rounds[0]} for n, rounds in found.items()}
    rates = {n: row["images_a_second"] for n, row in medians.items()}
    efficiency = {n: rate * counts[0] / (rates[counts[0]] * n) for n, rate in rates.items()}
    result = {"machine": environment(), "images": asked.parts * PART, "rounds": asked.rounds}
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    write_text(asked.out, json.dumps({**result, "workers": medians, "efficiency": efficiency}, indent=1) + "\n")
    print(json.dumps({"workers": medians, "efficiency": efficiency}, indent=1))


def one(images: Path, workers: int) -> dict[str, float]:
    """Images a second after the first part, and seconds until it came."""
    opened = edgepure.Bundle.open(edgepure.demo_bundle())
    preset = opened.manifest.presets[opened.manifest.default_preset]
    engine: dict[str, Any] = {"provider": "cpu", "precision": "fp32", "threads": 1, "slots": 8}
    task = Task.of(opened, preset, "labels", 0, False, "rgb", engine)
    sources, came = find_sources([images]), []
    began = time.perf_counter()
    options = RayOptions(ray="local", workers=workers, part=PART)
    results, _ = spread(task, sources, options, lambda i, result: {"label": result.label}, lambda share: came.append(
        time.perf_counter()
    ))  # fmt: skip
    assert len(results) == len(sources)
    # the parts that were under way when the first one came are counted from its side alone
    return {"images_a_second": (len(came) - 1) * PART / (came[-1] - came[0]), "start_seconds": came[0] - began}


if __name__ == "__main__":
    main()
