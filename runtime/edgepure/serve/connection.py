"""A connection of REST: uvicorn's on httptools, which neither slow clients nor endless headers can hold."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

#: Bytes of a request that are no body; more end the connection. The parser itself has no bound.
MAX_HEAD = 64 << 10
#: Bytes around a part of a body that comes in chunks.
_FRAME = 16


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
            super().data_received(data)
            if self._rest > MAX_HEAD:
                self.transport.close()

        def on_message_begin(self) -> None:
            if self._late is None:
                self._wait()
            super().on_message_begin()

        def on_body(self, body: bytes) -> None:
            self._rest -= len(body) + _FRAME
            super().on_body(body)

        def on_message_complete(self) -> None:
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
