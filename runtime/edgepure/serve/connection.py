"""A connection of REST: uvicorn's on httptools, which neither slow clients nor endless headers can hold.

What a server does all day is short: head and body of an answer leave in one piece, whoever cannot be served is told so
without an application, and an application hears of a client that goes without a task that waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

#: Bytes of a request that are no body; more end the connection. The parser itself has no bound.
MAX_HEAD = 64 << 10
#: Bytes around a part of a body that comes in chunks.
_FRAME = 16
#: Requests of one connection that may wait for the answers before theirs.
MAX_AHEAD = 64
_OFFER = (b"connection", b"upgrade", b"http2-settings")
#: The extension of ASGI by which an application is called when its client goes: a function that takes a function.
GONE = "edgepure.gone"

#: Status, headers and body of an answer.
Answer = tuple[int, list[tuple[bytes, bytes]], bytes]


def patient(
    seconds: float, refusal: Callable[[Any], Answer | None] | None = None, most: int = 1 << 30
) -> type[HttpToolsProtocol]:
    """The protocol that waits so long for the whole of a request. Once an application reads a body, how long it waits
    for that is its own business; after its answer the rest of a request gets as long again.

    Args:
        refusal: what a request is told at once, by its ASGI scope; None: it goes to the application.
        most: connections at a time. Where there are more, the one ends that has gone longest without a whole request:
            clients that only connect keep nobody out.
    """
    idle: dict[Any, None] = {}  # connections whose next request is not whole yet, the oldest first

    class Patient(HttpToolsProtocol):
        _late: asyncio.TimerHandle | None = None
        _rest = 0  # bytes of a request beside its body
        _looks: asyncio.TimerHandle
        _answering: Any = None  # the request whose turn it is; `cycle` is the one that came last
        _told: Callable[[], object] | None = None  # who wants to know that its client has gone

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            idle[self] = None
            if len(self.connections) > most and (oldest := next(iter(idle))) is not self:
                del idle[oldest]
                oldest.transport.close()
            self._wait()
            self._look(0)

        def connection_lost(self, exc: Exception | None) -> None:
            self._came()
            idle.pop(self, None)
            self._looks.cancel()
            super().connection_lost(exc)
            if self._answering is not None and not self._answering.response_complete:
                self._answering.disconnected = True
                self._answering.message_event.set()
            if self._told is not None:
                self._told()

        def data_received(self, data: bytes) -> None:
            self._unset_keepalive_if_required()
            while data:
                self._rest += len(data)
                try:
                    self.parser.feed_data(data)
                    data = b""
                except httptools.HttpParserUpgrade as error:
                    data = self._stay(data[error.args[0] :])
                except httptools.HttpParserError:
                    self.send_400_response("Invalid HTTP request received.")
                    return
            if self._rest > MAX_HEAD:
                self.transport.close()

        def _stay(self, rest: bytes) -> bytes:
            """Nothing here speaks another protocol, and clients of Java offer HTTP/2 with every first request. The
            parser leaves the body to that: the request is read once more, without the offer."""
            method, version = self.parser.get_method(), self.parser.get_http_version().encode()
            if method == b"CONNECT":
                self.send_400_response("This is no proxy.")
                return b""
            kept = [pair for pair in self.headers if pair[0] not in _OFFER]
            said = [
                word.strip().lower() for name, value in self.headers if name in _OFFER for word in value.split(b",")
            ]
            if b"close" in said:
                kept.append((b"connection", b"close"))
            lines = [b"%b %b HTTP/%b" % (method, self.url, version), *(b"%b: %b" % pair for pair in kept), b"", b""]
            self.parser, self._rest = httptools.HttpRequestParser(self), 0
            with suppress(AttributeError):  # of httptools before 0.6.3; as uvicorn's own
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
            return b"\r\n".join(lines) + rest

        def on_headers_complete(self) -> None:
            if len(self.pipeline) >= MAX_AHEAD:
                raise ValueError("too many requests before their answers")  # ends the parser, and the connection
            if not self.parser.should_upgrade():
                super().on_headers_complete()

        def _start_asgi_task(self, cycle: Any, app: Any) -> None:
            self._answering, self._told = cycle, None
            plain = cycle.keep_alive and not cycle.waiting_for_100_continue and not self.flow.write_paused
            answer = refusal(cycle.scope) if refusal is not None and plain else None
            if answer is not None:
                self._refuse(cycle, *answer)
                return
            cycle.transport = _Joined(self.transport, cycle)
            cycle.scope["extensions"] = {GONE: self._tell}
            super()._start_asgi_task(cycle, _unasked(app, cycle) if cycle.waiting_for_100_continue else app)

        def _tell(self, told: Callable[[], object]) -> None:
            self._told = told
            self.flow.resume_reading()  # a client whose next request waits has been paused, and would go unseen
            if self.transport.is_closing():
                told()

        def _refuse(self, cycle: Any, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
            pairs = [*self.server_state.default_headers, *headers, (b"content-length", b"%d" % len(body))]
            lines = b"".join(b"%b: %b\r\n" % pair for pair in pairs)
            self.transport.write(b"%b%b\r\n%b" % (STATUS_LINE[status], lines, body))
            cycle.response_started = cycle.response_complete = True
            self.on_response_complete()

        def on_message_begin(self) -> None:
            if self._late is None:
                self._wait()
            super().on_message_begin()

        def on_body(self, body: bytes) -> None:
            self._rest -= len(body) + _FRAME
            super().on_body(body)

        def on_message_complete(self) -> None:
            if self.parser.should_upgrade():
                return
            self._came()
            if self.cycle is not None and not self.cycle.response_complete:
                idle.pop(self, None)
            super().on_message_complete()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if not self.pipeline and not self.transport.is_closing():
                idle[self] = None

        def _wait(self) -> None:
            self._late = self.loop.call_later(seconds, self._give_up)

        def _came(self) -> None:
            self._rest = 0
            if self._late is not None:
                self._late.cancel()
                self._late = None

        def _look(self, before: int) -> None:
            """A client that reads nothing of its answer is not waited for, whether the connection is to end or not."""
            size = self.transport.get_write_buffer_size()
            if size and size == before:
                self.transport.abort()
            else:
                self._looks = self.loop.call_later(seconds, self._look, size)

        def _give_up(self) -> None:
            if self.cycle is None or self.cycle.response_complete:
                self.transport.close()
            else:
                self._wait()

    return Patient


class _Joined:
    """The transport of one answer: its head leaves with what follows it."""

    def __init__(self, transport: Any, cycle: Any) -> None:
        self._transport, self._cycle = transport, cycle
        self._head = b""
        self.is_closing = transport.is_closing

    def write(self, data: bytes) -> None:
        if self._cycle is not None and self._cycle.response_started:
            self._head, self._cycle = data, None
        else:
            self._transport.write(self._head + data)
            self._head = b""

    def close(self) -> None:
        if self._head:
            self._transport.write(self._head)
        self._transport.close()


def _unasked(app: Any, cycle: Any) -> Any:
    """An application for a request that waits for ``100 Continue``: whoever is refused without it keeps his body, and
    what he sends next would be taken for that. So the connection ends with such an answer."""

    async def asked(scope: Any, receive: Any, send: Any) -> None:
        async def sent(message: Any) -> None:
            if cycle.waiting_for_100_continue and cycle.more_body and not cycle.body:
                cycle.keep_alive = False
            await send(message)

        await app(scope, receive, sent)

    return asked
