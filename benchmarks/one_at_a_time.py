"""What REST and gRPC add to a request of `edgepure.Service` on an idle server, and what they would add to nothing.

A bare server on the same libraries (`benchmarks.peers.bare_app`: uvicorn, grpcio) answers at once. It is asked right
after an answer of `Service` in this process, for code is slower when something else has just filled the caches.
"""

from __future__ import annotations

import argparse
import http.client
import time
from collections.abc import Callable
from contextlib import closing

import numpy as np
import tritonclient.grpc as triton

import edgepure

from .load import Clients
from .servers import body, started

#: Requests one after another of a way that is timed.
TURN = 10
#: Asks with one of the images.
Ask = Callable[[int], None]


def overhead(asked: argparse.Namespace, files: list[bytes], requests: int = 300) -> dict[str, float]:
    """Median milliseconds of a request: `Service` in this process, `rest`, `grpc`; and of `Service` with a request of
    the bare server behind it, `service, bare rest` and `service, bare grpc`.

    They take turns of a few requests: each has weights of its own, and users have one.
    """
    bodies = [body("edgepure", file) for file in files]
    with (
        started("edgepure", asked) as (url, grpc_port),
        started("bare", asked) as (bare_url, bare_port),
        edgepure.load(asked.bundle, slots=asked.slots, threads=1) as purifier,
        edgepure.Service(purifier, asked.preset, votes=asked.votes, lanes=asked.workers) as service,
    ):
        for address in (url, bare_url):
            with closing(Clients(address, bodies)) as clients:
                clients.wait_for_server()
        rest, bare_rest = (by_rest(address, bodies) for address in (url, bare_url))
        grpc, bare_grpc = (by_grpc(port, files) for port in (grpc_port, bare_port))

        def alone(index: int) -> None:
            service.submit(files[index]).result()

        ways: dict[str, list[Ask]] = {
            "service": [alone],
            "rest": [rest],
            "grpc": [grpc],
            "service, bare rest": [alone, bare_rest],
            "service, bare grpc": [alone, bare_grpc],
        }
        took: dict[str, list[float]] = {way: [] for way in ways}
        for start in range(0, requests, TURN):
            for way, asks in ways.items():
                for index in range(start, start + TURN):
                    began = time.perf_counter()
                    for ask in asks:
                        ask(index % len(files))
                    if index > start:  # the first finds the weights of others in the cache
                        took[way].append(1e3 * (time.perf_counter() - began))
    return {way: float(np.median(times)) for way, times in took.items()}


def table(added: dict[str, float]) -> str:
    """Markdown: what a request costs on an idle server."""
    lines = ["| one request at a time | median, ms | more than Service |", "|---|---|---|"]
    lines += [f"| {way} | {ms:.2f} | {ms - added['service']:.2f} |" for way, ms in added.items()]
    return "\n".join(lines)


def by_rest(url: str, bodies: list[bytes]) -> Ask:
    """Requests over one connection."""
    host, path = url.removeprefix("http://").split("/", 1)
    connection = http.client.HTTPConnection(host)

    def ask(index: int) -> None:
        connection.request("POST", "/" + path, bodies[index], {"Content-Type": "application/json"})
        connection.getresponse().read()

    return ask


def by_grpc(port: int, files: list[bytes]) -> Ask:
    """Requests of Triton's client over one channel."""
    client = triton.InferenceServerClient(f"127.0.0.1:{port}")

    def ask(index: int) -> None:
        tensor = triton.InferInput("image", [1], "BYTES")
        tensor.set_data_from_numpy(np.array([files[index]], object))
        client.infer("m", [tensor])

    return ask
