"""The short form of `python -m benchmarks.soak`: every fault once, in seconds."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.needs("aiohttp", "grpc", "prometheus_client", "starlette", "tritonclient", "uvicorn")
def test_no_answer_is_lost_or_wrong_whatever_befalls_the_server(tmp_path: Path) -> None:
    from benchmarks.soak.__main__ import FAULTS, soak

    report = soak(tmp_path, minutes=len(FAULTS), minute=1.5, clients=6, votes=1, seed=0)
    assert report["complaints"] == []
    asked = report["requests"]
    assert asked["answered"] > 50 and asked["failed"] and asked["invalid"] and asked["vanished"]
