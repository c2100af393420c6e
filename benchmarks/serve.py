"""`python -m benchmarks.serve`: latency of `edgepure serve` under load, beside LitServe and Ray Serve.

All serve the same bundle with the same preset, votes and slots, each with its own batching, and compute with as many
threads: lanes of edgepure, processes of the others. Clients are one process that speaks HTTP over loopback and starts
requests at random (Poisson), whether or not earlier ones have been answered; times count from when a request was due.
They stand for other machines: the servers run at a lower priority (nice 10), and by how much requests left late is
reported. Load 1 is the most that any of the servers answered while twice as many requests as slots were always under
way. Every load lasts as long as load 1, after two seconds of as many requests as are answered. The order of the servers
turns from round to round; numbers are medians over the rounds. Beside them stands a queue without losses
(`benchmarks.queueing`) that can do as much as edgepure, at the loads below 1. Then, one request at a time: what REST
and gRPC add to `edgepure.Service` in this process (`benchmarks.one_at_a_time`; ``--rounds 0`` does nothing else
afterwards). Times mean something only on a machine that does nothing else.

``--peers PYTHON`` names the interpreter of an environment with litserve, ray[serve] and edgepure.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import edgepure
from edgepure.demo import demo_images
from edgepure.files.atomic import write_text

from . import one_at_a_time
from .__main__ import machine
from .load import Clients, NotStartedError
from .queueing import lossless
from .servers import body, log_of, started

SERVERS = ("edgepure", "litserve", "ray")
LOADS = (0.7, 1.0, 3.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default=str(edgepure.demo_bundle()))
    parser.add_argument("--images", type=Path, help="an .npz with `images` for a bundle of one's own; default: random")
    parser.add_argument(
        "--preset", default="heterogeneous-ssni", help="one whose plans differ in length from image to image"
    )
    parser.add_argument("--votes", type=int, default=1)
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument(
        "--workers", type=int, default=2, help="that compute: lanes of edgepure, processes of the others"
    )
    parser.add_argument("--waiting", type=int, default=16, help="of edgepure: more are refused; the others refuse none")
    parser.add_argument("--requests", type=int, default=600, help="of each server and round at load 1")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--servers", default=",".join(SERVERS))
    parser.add_argument("--peers", default=sys.executable, metavar="PYTHON")
    parser.add_argument("--out", type=Path, default=Path("out/serve.json"))
    asked = parser.parse_args()
    servers = asked.servers.split(",")
    files = png_files(images_of(asked))
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    most = {}
    for server in list(servers):
        try:
            most[server] = run(
                server, asked, files, lambda clients: clients.closed_loop(2 * asked.slots * asked.workers, 10)
            )
            print(f"{server}: {most[server]:.1f} answers a second at most", flush=True)
        except NotStartedError as error:
            servers.remove(server)
            print(f"{server} is left out: {error}; see {log_of(server, asked)}", flush=True)
    capacity = max(most.values())
    print(f"load 1: {capacity:.1f} answers a second", flush=True)
    rounds: list[dict[str, dict[float, dict[str, float]]]] = []
    added: dict[str, float] = {}
    queue: dict[float, dict[str, float]] = {}
    if "edgepure" in servers:
        added = one_at_a_time.overhead(asked, files)
        print(one_at_a_time.table(added), flush=True)
        calls, below = calls_of(asked), [load for load in LOADS if load < 1.0]
        queue = {load: lossless(load * capacity, most["edgepure"], asked.workers, calls) for load in below}
        print("a queue without losses: " + ", ".join(f"load {n:g}: p99 {q['p99']:.1f} ms" for n, q in queue.items()))
    kept = ("preset", "votes", "slots", "workers", "waiting", "requests")
    result = {"machine": machine(), **{key: getattr(asked, key) for key in kept}, "capacity": capacity, "most": most}
    result |= {"one_at_a_time": added, "lossless": queue}
    write_text(asked.out, json.dumps(result, indent=1) + "\n")
    for number in range(asked.rounds):
        turned = servers[number % len(servers) :] + servers[: number % len(servers)]
        work = partial(at_all_loads, capacity=capacity, asked=asked, seed=number)
        rounds.append({server: run(server, asked, files, work) for server in turned})
        found = {
            server: {
                load: {key: float(np.median([r[server][load][key] for r in rounds])) for key in rounds[0][server][load]}
                for load in LOADS
            }
            for server in servers
        }
        print(f"round {number + 1}\n{table(found)}", flush=True)
        result |= {"rounds": len(rounds), "servers": found}
        write_text(asked.out, json.dumps(result, indent=1) + "\n")


def at_all_loads(
    clients: Clients, capacity: float, asked: argparse.Namespace, seed: int
) -> dict[float, dict[str, float]]:
    """Every load, one after another; what the last one left is answered before the next begins."""
    clients.closed_loop(2 * asked.slots * asked.workers, 2)
    return {load: clients.open_loop(load * capacity, round(load * asked.requests), seed) for load in LOADS}


def run(server: str, asked: argparse.Namespace, files: list[bytes], work: Callable[[Clients], Any]) -> Any:
    """Start a server, give ``work`` its clients once it has answered a request, and end it."""
    with started(server, asked) as (url, _), closing(Clients(url, [body(server, file) for file in files])) as clients:
        clients.wait_for_server()
        return work(clients)


def png_files(images: np.ndarray) -> list[bytes]:
    """Images [N, C, H, W] in [0, 1] as clients send them."""
    found = []
    for image in np.round(255 * images).astype(np.uint8):
        file = io.BytesIO()
        Image.fromarray(image[0] if len(image) == 1 else np.moveaxis(image, 0, -1)).save(file, "PNG")
        found.append(file.getvalue())
    return found


def images_of(asked: argparse.Namespace) -> np.ndarray:
    """Those that clients send: the digits, clean and attacked ones in turn, those of a file, or random ones."""
    if asked.images is not None:
        found = np.load(asked.images)["images"]
        return np.moveaxis(found, -1, 1) / np.float32(255.0) if found.dtype == np.uint8 else found
    if asked.bundle == str(edgepure.demo_bundle()):
        found = demo_images()
        return np.stack([found.clean, found.adversarial], axis=1).reshape(-1, *found.clean.shape[1:])
    image = edgepure.Bundle.open(asked.bundle).manifest.image
    shape = (64, image.channels, image.height, image.width)
    return np.random.default_rng(0).random(shape, np.float32)


def calls_of(asked: argparse.Namespace) -> list[float]:
    """UNet calls of each of the images that clients send."""
    with edgepure.load(asked.bundle, threads=1) as purifier:
        results = purifier.run(images_of(asked), purifier.preset(asked.preset, asked.votes), noise=0)
    return [float(result.unet_calls) for result in results]


def table(found: dict[str, dict[float, dict[str, float]]]) -> str:
    """Markdown: a row a server and load."""
    lines = [
        "| server | load | p50, ms | p99, ms | p99 / ours | answered | sent late by, ms |",
        "|---|---|---|---|---|---|---|",
    ]
    for server, loads in found.items():
        for load, row in loads.items():
            ours = found.get("edgepure", loads)[load]["p99"]
            lines.append(
                f"| {server} | {load:g} | {row['p50']:.1f} | {row['p99']:.1f} | {row['p99'] / ours:.2f} | "
                f"{100 * row['answered']:.0f} % | {row['late']:.1f} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
