"""Connections of REST: whoever is slow, or never ends his headers, is not waited for."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest

from edgepure.serve.connection import GONE as TELLS
from edgepure.serve.connection import MAX_AHEAD, MAX_HEAD
from edgepure.serve.infer import read_body
from edgepure.serve.server import _bind, _server
from edgepure.serve.settings import ServeSettings

SETTINGS = ServeSettings(port=0, patience=0.3, max_body=1 << 20)
HEAD = b"POST / HTTP/1.1\r\nHost: x\r\n"
LARGE = 32 << 20
GONE = threading.Event()
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


async def length(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the length of a body; of ``/early`` before it is read, of ``/late``, ``/told`` when he has gone."""
    if scope["path"] == "/told":
        gone = asyncio.Event()
        scope["extensions"][TELLS](gone.set)
        await gone.wait()
        GONE.set()
        return
    if scope["path"] == "/late":
        while (await receive())["type"] != "http.disconnect":
            pass
        GONE.set()
        return
    try:
        body = b"" if scope["path"] == "/early" else await read_body(dict(scope["headers"]), receive, SETTINGS)
        status, text = 200, str(len(body))
    except Exception as error:
        status, text = 504, getattr(error, "code", "")
    sent = json.dumps(text if scope["path"] != "/large" else "x" * LARGE).encode()
    headers = [(b"content-length", str(len(sent)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": sent})


def refusal(scope: Any) -> Any:
    """``/full`` takes nothing."""
    return (503, [(b"retry-after", b"1")], b'"full"') if scope["path"] == "/full" else None


@contextlib.asynccontextmanager
async def served(settings: ServeSettings = SETTINGS) -> AsyncIterator[tuple[str, int]]:
    server, listening = _server(length, settings, refusal), _bind(settings)
    task = asyncio.create_task(server.serve(sockets=[listening]))
    while not server.started:
        await asyncio.sleep(0.01)
    yield listening.getsockname()[:2]
    server.should_exit = True
    await task


def talk(what: Talk) -> None:
    """Run a client, which must come to its end by itself."""

    async def run() -> None:
        async with served() as address:
            reader, writer = await asyncio.open_connection(*address)
            await asyncio.wait_for(what(reader, writer), 20)
            writer.close()

    asyncio.run(run())


async def answer(reader: asyncio.StreamReader) -> tuple[int, str]:
    head = await reader.readuntil(b"\r\n\r\n")
    size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    return int(head.split()[1]), json.loads(await reader.readexactly(size))


@pytest.mark.parametrize("sent", [b"", HEAD, b"POS", HEAD + b"X: " + b"y" * 100])
def test_a_head_that_does_not_end_is_not_waited_for(sent: bytes) -> None:
    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(sent)
        assert await reader.read() == b""

    talk(client)


def test_nor_is_the_head_of_a_second_request() -> None:
    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"Content-Length: 3\r\n\r\nabc")
        assert await answer(reader) == (200, "3")
        writer.write(b"P")
        await asyncio.sleep(0.1)
        writer.write(b"O")
        assert await reader.read() == b""

    talk(client)


def test_a_body_that_does_not_come_is_told_so_and_then_closed() -> None:
    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"Content-Length: 30\r\n\r\nabc")
        assert await answer(reader) == (504, "E-request-slow")
        assert await reader.read() == b""

    talk(client)


def test_whoever_was_answered_before_his_body_has_to_end_it() -> None:
    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        early = HEAD.replace(b" / ", b" /early ") + b"Content-Length: 30\r\n\r\n"
        writer.write(early)
        assert await answer(reader) == (200, "0")
        writer.write(b"x" * 30 + HEAD + b"Content-Length: 3\r\n\r\nabc")
        assert await answer(reader) == (200, "3"), "the body belonged to nothing, and the connection goes on"
        writer.write(early + b"x")
        assert await answer(reader) == (200, "0")
        assert await reader.read() == b""

    talk(client)


@pytest.mark.parametrize(
    "endless",
    [
        HEAD + b"X: " + b"y" * (4 * MAX_HEAD),
        HEAD + b"X: y\r\n" * MAX_HEAD,
        b"POST /" + b"y" * (4 * MAX_HEAD),
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: " + b"y" * (4 * MAX_HEAD),
    ],
    ids=["value", "names", "address", "trailer"],
)
def test_headers_have_an_end(endless: bytes) -> None:
    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            writer.write(endless)
            await writer.drain()
            assert b" 200 " not in await reader.read()

    talk(client)


def test_bodies_in_small_chunks_are_no_headers() -> None:
    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        count = MAX_HEAD // 4
        writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * count + b"0\r\n\r\n")
        assert await answer(reader) == (200, str(count))
        writer.write(HEAD + b"Content-Length: 300000\r\n\r\n" + b"x" * 300_000)
        assert await answer(reader) == (200, "300000")

    talk(client)


def test_a_client_that_offers_another_protocol_is_answered() -> None:
    """HTTP clients of Java offer HTTP/2 with every first request."""

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n"
        for _ in range(2):
            writer.write(HEAD + offer + b"Content-Length: 3\r\n\r\nabc")
            assert await answer(reader) == (200, "3")
        writer.write(HEAD + offer + b"Content-Length: 3\r\n\r\n")
        await asyncio.sleep(0.05)
        writer.write(b"abc" + HEAD + offer + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n")
        assert [await answer(reader) for _ in range(2)] == [(200, "3"), (200, "2")]
        writer.write(b"CONNECT x:1 HTTP/1.1\r\nHost: x:1\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 400 ")

    talk(client)


def test_whoever_waits_for_leave_and_is_refused_keeps_his_body() -> None:
    """What he sends next is a request, and would be taken for the body."""

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"abc")
        assert await answer(reader) == (200, "3"), "and the connection goes on"
        writer.write(HEAD.replace(b" / ", b" /early ") + b"Expect: 100-continue\r\nContent-Length: 30\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ") and b"connection: close" in head
        assert await reader.read() == b'"0"'

    talk(client)


@pytest.mark.parametrize("offer", [b"", b"Connection: Upgrade\r\nUpgrade: h2c\r\n"], ids=["plain", "offer"])
def test_requests_before_their_answers_have_an_end(offer: bytes) -> None:
    one = HEAD + offer + b"Content-Length: 3\r\n\r\nabc"

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(one * MAX_AHEAD)
        assert [await answer(reader) for _ in range(MAX_AHEAD)] == [(200, "3")] * MAX_AHEAD
        with contextlib.suppress(ConnectionError):
            writer.write(one * 5000)
            await writer.drain()
            assert (await reader.read()).count(b"HTTP/1.1 200 ") < 500

    talk(client)


@pytest.mark.parametrize("path", [b" /late ", b" /told "])
def test_a_client_that_goes_is_gone_for_the_request_that_is_answered_too(path: bytes) -> None:
    GONE.clear()

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD.replace(b" / ", path) + b"\r\n" + HEAD + b"Content-Length: 3\r\n\r\n")
        await asyncio.sleep(0.1)
        writer.close()
        assert await asyncio.to_thread(GONE.wait, 10)

    talk(client)


def test_an_offer_is_answered_as_it_was_asked() -> None:
    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"Connection: Upgrade, close\r\nUpgrade: h2c\r\nContent-Length: 3\r\n\r\nabc")
        assert await answer(reader) == (200, "3")
        assert await reader.read() == b""

    talk(client)


def test_an_answer_that_nobody_reads_ends_the_connection() -> None:
    large = HEAD.replace(b" / ", b" /large ") + b"Content-Length: 0\r\n\r\n"

    async def idle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(large)
        await asyncio.sleep(2.0)
        with contextlib.suppress(ConnectionError):
            assert len(await reader.read()) < LARGE

    async def reads(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(large)
        assert await answer(reader) == (200, "x" * LARGE)

    talk(idle)
    talk(reads)


def test_whoever_is_refused_at_the_door_keeps_his_connection() -> None:
    """Whether his body has come, is on its way or comes late, and whoever is asked for before and after him."""
    full = HEAD.replace(b" / ", b" /full ")
    asked = HEAD + b"Content-Length: 3\r\n\r\nabc"

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        whole = full + b"Content-Length: 3\r\n\r\nabc"
        writer.write(whole + whole + asked + whole + asked)
        assert [await answer(reader) for _ in range(5)] == [(503, "full")] * 2 + [(200, "3"), (503, "full"), (200, "3")]
        writer.write(full + b"Content-Length: 30\r\n\r\nabc")
        assert await answer(reader) == (503, "full"), "before his body is there"
        writer.write(b"x" * 27 + asked)
        assert await answer(reader) == (200, "3"), "and the body belonged to nothing"
        writer.write(whole * (2 * MAX_AHEAD))
        assert [await answer(reader) for _ in range(2 * MAX_AHEAD)] == [(503, "full")] * (2 * MAX_AHEAD)

    talk(client)


@pytest.mark.parametrize("asks", [b"Connection: close\r\n", b"Expect: 100-continue\r\n"])
def test_whoever_is_refused_otherwise_is_told_by_the_application(asks: bytes) -> None:
    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD.replace(b" / ", b" /full ") + asks + b"Content-Length: 3\r\n\r\nabc")
        assert b" 200 OK" in await reader.readuntil(b"\r\n\r\n" if b"close" in asks else b" OK\r\n")

    talk(client)


def test_connections_without_a_request_keep_nobody_out() -> None:
    """The oldest of them end; one that is being answered, and one that has just been, stay."""

    async def run() -> None:
        settings = replace(SETTINGS, connections=4, patience=20.0)
        async with served(settings) as address:
            asked = await asyncio.open_connection(*address)
            asked[1].write(HEAD + b"Content-Length: 3\r\n\r\nabc")
            assert await answer(asked[0]) == (200, "3")
            idle = [await asyncio.open_connection(*address) for _ in range(3)]
            asked[1].write(HEAD + b"Content-Length: 3\r\n\r\nabc")
            assert await answer(asked[0]) == (200, "3"), "now it is the youngest of those without a request"
            for _ in range(6):
                last = await asyncio.open_connection(*address)
                last[1].write(HEAD + b"Content-Length: 3\r\n\r\nabc")
                assert await asyncio.wait_for(answer(last[0]), 5) == (200, "3")
                idle.append(last)
            assert await asyncio.wait_for(idle[0][0].read(), 5) == b""
            for _, writer in (asked, *idle):
                writer.close()

    asyncio.run(run())
