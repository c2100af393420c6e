"""The servers that `benchmarks.serve` compares: how each is started, ended and asked."""

from __future__ import annotations

import argparse
import base64
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def log_of(server: str, asked: argparse.Namespace) -> Path:
    """What a server says."""
    path: Path = asked.out.with_suffix(f".{server}.log")
    return path


@contextmanager
def started(server: str, asked: argparse.Namespace) -> Iterator[tuple[str, int]]:
    """A server of the bundle, or the bare one: where it answers images, and the port of gRPC (ours and the bare one).
    It ends with the block."""
    port, grpc_port = free_port(), free_port()
    choice = [asked.bundle, asked.preset, str(asked.votes), str(asked.slots), str(port), str(asked.workers)]
    command, path = [asked.peers, "-m", f"benchmarks.peers.{server}_app", *choice], "classify"
    if server == "edgepure":
        options = {"preset": asked.preset, "votes": asked.votes, "slots": asked.slots, "threads": 1}
        options |= {"waiting": asked.waiting, "lanes": asked.workers}
        options |= {"port": port, "grpc-port": grpc_port}
        flags = [text for name, value in options.items() for text in (f"--{name}", str(value))]
        command, path = [sys.executable, "-m", "edgepure", "serve", f"m={asked.bundle}", *flags], "v2/models/m/infer"
    elif server == "bare":
        command = [sys.executable, "-m", "benchmarks.peers.bare_app", str(port), str(grpc_port)]
    with log_of(server, asked).open("wb") as log:
        process = subprocess.Popen(
            command,
            env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"},
            stdout=log,
            stderr=log,
            preexec_fn=_beneath,
        )
    try:
        yield f"http://127.0.0.1:{port}/{path}", grpc_port
    finally:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(30)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # what a peer left behind
        process.wait()


def _beneath() -> None:
    """A server is a group of processes of its own, in our session (Linux shares processors out by sessions first), and
    stands back behind the clients: those of a real one have processors of their own."""
    os.setpgid(0, 0)
    os.nice(10)


def body(server: str, file: bytes) -> bytes:
    """A request of one image file."""
    text = base64.b64encode(file).decode()
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [text]}
    return json.dumps({"inputs": [tensor]} if server == "edgepure" else {"image": text}).encode()


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port
