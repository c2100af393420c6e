"""Servers of the digits in processes of their own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from serve_process import Server

import edgepure

for needed in ("starlette", "uvicorn", "grpc", "prometheus_client", "tritonclient"):
    pytest.importorskip(needed)


@pytest.fixture(scope="session")
def start() -> Iterator[Callable[..., Server]]:
    """Starts servers, and ends those that the test left."""
    servers: list[Server] = []

    def make(*arguments: str, **more: Any) -> Server:
        servers.append(Server(*arguments, **more))
        return servers[-1]

    yield make
    for server in servers:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()


@pytest.fixture(scope="session")
def digits() -> Path:
    return Path(os.fspath(edgepure.demo_bundle()))


@pytest.fixture(scope="session")
def server(start: Callable[..., Server], digits: Path) -> Server:
    """One with everything switched on."""
    shown = [word for name in ("probabilities", "purified") for word in ("--show", name)]
    return start(
        f"digits={digits}",
        f"digits:2={digits}",
        "--preset",
        "uniform",
        "--votes",
        "1",
        "--lanes",
        "2",
        "--page",
        *shown,
        "--grpc-port",
        "0",
        env={"EDGEPURE_ADMIN_TOKEN": "owner"},
    )
