"""A connection of REST: uvicorn's on httptools, which neither slow clients nor endless headers can hold."""

from __future__ import annotations

import asyncio
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

#: Bytes of a request that are no body; more end the connection. The parser itself has no bound.
MAX_HEAD = 64 << 10
#: Bytes around a part of a body that comes in chunks.
_FRAME = 16
_OFFER = (b"connection", b"upgrade", b"http2-settings")


def patient(seconds: float) -> type[HttpToolsProtocol]:
    """The protocol that waits so long for the whole of a request. Once an application reads a body, how long it waits
    for that is its own business; after its answer the rest of a request gets as long again."""

    class Patient(HttpToolsProtocol):
        _late: asyncio.TimerHandle | None = None
        _rest = 0  # bytes of a request beside its body

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._wait()

        def connection_lost(self, exc: Exception | None) -> None:
            self._came()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            self._rest += len(data)
            self._unset_keepalive_if_required()
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as error:
                self._stay(data[error.args[0] :])
            except httptools.HttpParserError:
                self.send_400_response("Invalid HTTP request received.")
            if self._rest > MAX_HEAD:
                self.transport.close()

        def _stay(self, rest: bytes) -> None:
            """Nothing here speaks another protocol, and clients of Java offer HTTP/2 with every first request. The
            parser leaves the body to that: the request is read once more, without the offer."""
            method = self.parser.get_method()
            if method == b"CONNECT":
                self.send_400_response("This is no proxy.")
                return
            kept = [pair for pair in self.headers if pair[0] not in _OFFER]
            lines = [b"%b %b HTTP/1.1" % (method, self.url), *(b"%b: %b" % pair for pair in kept), b"", b""]
            self.parser, self._rest = httptools.HttpRequestParser(self), 0
            self.data_received(b"\r\n".join(lines) + rest)

        def on_headers_complete(self) -> None:
            if not self.parser.should_upgrade():
                super().on_headers_complete()

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
            super().on_message_complete()

        def _wait(self) -> None:
            self._late = self.loop.call_later(seconds, self._give_up)

        def _came(self) -> None:
            self._rest = 0
            if self._late is not None:
                self._late.cancel()
                self._late = None

        def _give_up(self) -> None:
            if self.cycle is None or self.cycle.response_complete:
                self.transport.close()
            else:
                self._wait()

    return Patient
