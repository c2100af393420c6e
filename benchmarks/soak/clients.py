"""The clients of a soak: they ask at random, and judge every answer."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
from collections import Counter
from contextlib import suppress
from random import Random
from typing import Any

import aiohttp
import tritonclient.grpc.aio as triton
import tritonclient.http as triton_http
from tritonclient.utils import InferenceServerException

from .requests import LENGTH, Asked, Requests
from .server import MODEL, Served
from .watch import Watch

#: How many ask at a time; it changes six times a minute.
CLIENTS = (1, 2, 4, 8, 16, 40)
#: Longer than the server's own limit: who waits so long lost his answer.
PATIENCE = 150.0


class Clients:
    """Counts what became of the requests.

    Attributes:
        counts: requests by what became of them.
    """

    def __init__(self, served: Served, requests: Requests, watch: Watch, seed: int, most: int) -> None:
        self._served, self._requests, self._watch = served, requests, watch
        self._random, self._most = Random(seed), most
        self.counts: Counter[str] = Counter()

    async def ask_for(self, seconds: float) -> None:
        """Ask for so long, each sixth of it with another number of clients; returns when nobody waits any more."""
        connector, timeout = aiohttp.TCPConnector(limit=0, keepalive_timeout=3.0), aiohttp.ClientTimeout(PATIENCE)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as rest,
            triton.InferenceServerClient(self._served.grpc) as grpc,
        ):
            for _ in range(6):
                end = time.monotonic() + seconds / 6
                clients = min(self._random.choice(CLIENTS), self._most)
                await asyncio.gather(*(self._client(rest, grpc, end) for _ in range(clients)))

    async def _client(self, rest: aiohttp.ClientSession, grpc: Any, end: float) -> None:
        while time.monotonic() < end:
            asked = self._requests.next()
            began = time.monotonic()
            try:
                if asked.kind == "vanishing":
                    self.counts[await self._vanish(grpc, asked)] += 1
                    continue
                ask = self._by_rest(rest, asked) if asked.inputs is None else self._by_grpc(grpc, asked)
                word, complaint = await ask
            except (OSError, aiohttp.ClientError, asyncio.TimeoutError, TimeoutError) as error:
                word, complaint = "no answer", f"no answer: {type(error).__name__}: {error}"
            if complaint:
                await asyncio.sleep(1.0)  # whether everything was stopped is noticed by then
            if word in ("no answer", "overdue") and complaint and self._watch.excused(("stop",), began):
                word, complaint = "while the server was stopped", ""
            may = ("throw", "killed", "written") if asked.model == MODEL else ("throw", "killed")
            if word == "failed" and self._watch.excused(may, began):
                complaint = ""
            self.counts[word] += 1
            if complaint:
                self._watch.complain(f"{asked.kind} request to {asked.model}: {complaint}")
            await asyncio.sleep(self._random.uniform(0.0, 0.1))

    async def _by_rest(self, rest: aiohttp.ClientSession, asked: Asked) -> tuple[str, str]:
        url = f"{self._served.url}/v2/models/{asked.model}/infer"
        async with rest.post(url, data=asked.body, headers=asked.headers) as answer:
            status, body = answer.status, await answer.read()
            if status == 200:
                length = answer.headers.get(LENGTH)
                found = triton_http.InferenceServerClient.parse_response_body(
                    body, header_length=None if length is None else int(length)
                )
                return self._answered(asked, found)
            if status == 503 and "Retry-After" not in answer.headers:
                return "refused", "503 without Retry-After"
        try:
            code = json.loads(body)["code"]
        except (ValueError, KeyError, TypeError):
            return "failed", f"status {status} without a code: {body[:80]!r}"
        return self._refused(asked, status, code)

    async def _by_grpc(self, grpc: Any, asked: Asked) -> tuple[str, str]:
        try:
            found = await grpc.infer(asked.model, asked.inputs, client_timeout=PATIENCE)
        except InferenceServerException as error:
            words = f"{error.status()} {error.message()}"
            if "[" not in words:
                return "no answer", f"no answer: {words[:120]}"
            statuses = {"UNAVAILABLE": 503, "DEADLINE_EXCEEDED": 504, "INVALID_ARGUMENT": 400, "NOT_FOUND": 404}
            name = str(error.status()).rpartition(".")[2]
            return self._refused(asked, statuses.get(name, 500), words.rpartition("[")[2].rstrip("]"))
        return self._answered(asked, found)

    def _answered(self, asked: Asked, found: Any) -> tuple[str, str]:
        if asked.kind == "bad":
            return "answered", "answered, though it should have been refused"
        return "answered", self._requests.wrong(asked, found.as_numpy)

    def _refused(self, asked: Asked, status: int, code: str) -> tuple[str, str]:
        said = f"status {status}, {code}"
        if status == 503:
            return "refused", "" if code == "E-service-full" else said
        if asked.kind == "bad":
            return "invalid", "" if status in (400, 404, 413) and code in asked.codes else said
        if status == 504:
            return "overdue", "" if asked.kind == "short" else said
        return "failed", said

    async def _vanish(self, grpc: Any, asked: Asked) -> str:
        """Go away in the middle: of the head, of the body, or of the wait for the answer."""
        if asked.inputs is not None:
            call = asyncio.ensure_future(grpc.infer(asked.model, asked.inputs))
            await asyncio.sleep(self._random.uniform(0.0, 0.1))
            call.cancel()
            with suppress(asyncio.CancelledError, InferenceServerException):
                await call
            return "vanished"
        names = {"Host": "x", "Content-Length": str(len(asked.body)), **asked.headers}
        head = f"POST /v2/models/{asked.model}/infer HTTP/1.1\r\n" + "".join(f"{n}: {v}\r\n" for n, v in names.items())
        sent = head.encode() + b"\r\n" + asked.body
        cut = self._random.choice((self._random.randrange(len(sent)), len(sent)))
        _, writer = await asyncio.wait_for(asyncio.open_connection(self._served.host, self._served.port), 30.0)
        writer.write(sent[:cut])
        await asyncio.sleep(self._random.uniform(0.0, 0.1))
        if self._random.random() < 0.5:  # a reset instead of an orderly end
            connection = writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.close()
        with suppress(OSError, asyncio.TimeoutError):
            await asyncio.wait_for(writer.wait_closed(), 5.0)
        return "vanished"
