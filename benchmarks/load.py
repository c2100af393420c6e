"""Clients of a server: as fast as it answers (closed loop), and at random whether it answers or not (open loop)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import numpy as np

#: Sends the request of this index; the HTTP status of the answer.
Ask = Callable[[int], Awaitable[int]]


class NotStartedError(Exception):
    """A server does not answer."""


async def with_client(url: str, bodies: list[bytes], work: Callable[[Ask], Awaitable[Any]]) -> Any:
    """Run ``work`` with a client that keeps its connections, once the server has answered a first request."""
    headers = {"Content-Type": "application/json"}
    connector, timeout = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(60)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, headers=headers) as client:

        async def ask(index: int) -> int:
            async with client.post(url, data=bodies[index % len(bodies)]) as answer:
                await answer.read()
                return answer.status

        await _ready(ask)
        return await work(ask)


async def _ready(ask: Ask) -> None:
    for _ in range(600):
        try:
            if await ask(0) == 200:
                return
        except aiohttp.ClientError:
            pass  # not listening yet
        await asyncio.sleep(0.2)
    raise NotStartedError("the server did not answer within two minutes")


async def closed_loop(ask: Ask, clients: int, seconds: float) -> float:
    """Answers a second while each of ``clients`` sends its next request when its last was answered."""
    count = 0
    began = time.perf_counter()

    async def client(index: int) -> None:
        nonlocal count
        while time.perf_counter() < began + seconds:
            right = await ask(index) == 200
            count += right  # not in one: what is added to is read before the answer is awaited
            index += clients

    await asyncio.gather(*(client(index) for index in range(clients)))
    return count / (time.perf_counter() - began)


async def open_loop(ask: Ask, rate: float, requests: int, seed: int) -> dict[str, float]:
    """Milliseconds from the time a request was due to its answer, of those that were answered; and their share."""
    due = np.cumsum(np.random.default_rng(seed).exponential(1 / rate, requests))
    took, status = np.zeros(requests), np.zeros(requests, int)
    began = time.perf_counter()

    async def one(index: int) -> None:
        await asyncio.sleep(max(0.0, began + due[index] - time.perf_counter()))
        try:
            status[index] = await ask(index)
        except (aiohttp.ClientError, asyncio.TimeoutError):
            status[index] = 0
        took[index] = 1e3 * (time.perf_counter() - began - due[index])

    await asyncio.gather(*(one(index) for index in range(requests)))
    answered = took[status == 200]
    p50, p99 = np.percentile(answered, (50, 99)) if len(answered) else (np.nan, np.nan)
    return {"p50": float(p50), "p99": float(p99), "answered": len(answered) / requests}
