"""Infer requests of REST, straight on ASGI: what a server does all day goes past the routes of `rest`.

Whoever cannot be served is told so before his body is read: in overload most requests are refused, and what a refusal
costs is taken from those that are answered.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextlib import suppress
from typing import Any

from ..errors import BusyError, EdgepureError, OverdueError, RequestError
from .answer import answer, seconds_left
from .connection import GONE, Answer
from .health import Health
from .logs import log
from .metrics import Metrics
from .models import Models
from .outcome import BodySizeError, outcome_of, permitted
from .protocol import LENGTH_HEADER, parse_request, write_response
from .settings import ServeSettings
from .traces import span

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = Mapping[bytes, bytes]
#: Takes what is called when the client goes.
OnGone = Callable[[Callable[[], object]], object]

_LENGTH = LENGTH_HEADER.lower().encode()


class GoneError(Exception):
    """The client has closed its connection."""


class Infer:
    """``POST /v2/models/NAME[/versions/VERSION]/infer`` of one server, as an ASGI application."""

    def __init__(self, models: Models, health: Health, metrics: Metrics, settings: ServeSettings) -> None:
        self._models, self._health, self._metrics, self._settings = models, health, metrics, settings

    def takes(self, scope: Scope) -> bool:
        """Whether a request is one of these."""
        return scope["type"] == "http" and scope["method"] == "POST" and place(scope["path"]) is not None

    def refusal(self, scope: Scope) -> Answer | None:
        """What a request is told whose images would not be taken now; None: it may be, or is refused otherwise."""
        found = place(scope["path"]) if scope["method"] == "POST" else None
        if found is None or not self._permitted(dict(reversed(scope["headers"]))):
            return None
        try:
            with self._models.get(*found) as model:
                model.service.check_room()
        except BusyError as error:
            self._metrics.ended(*found, "rest", "refused")
            return refusal_of(error, scope["path"])
        except EdgepureError:
            pass
        return None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: Headers = dict(reversed(scope["headers"]))  # of two the first counts, as in `rest`
        found = place(scope["path"])
        assert found is not None  # `takes` said so
        try:
            status, more, body = await self._answer(*found, headers, receive, scope.get("extensions", {}).get(GONE))
        except GoneError:
            self._metrics.ended(*found, "rest", "cancelled")
            status, more, body = 499, [], b""
        except asyncio.CancelledError:  # the time in which a server that ends may finish has passed
            self._metrics.ended(*found, "rest", "cancelled")
            status, more, body = refused(503, "this server ends; ask another one", "E-service-closed")
        except _NotPermittedError:
            status, more, body = unpermitted()
        except Exception as error:
            outcome = outcome_of(error)[1]
            self._metrics.ended(*found, "rest", outcome)
            if outcome == "failed":
                self._health.doubt()
            status, more, body = refusal_of(error, scope["path"])
        await send({"type": "http.response.start", "status": status, "headers": [*more, _length(body)]})
        await send({"type": "http.response.body", "body": body})

    async def _answer(
        self, name: str, version: str, headers: Headers, receive: Receive, on_gone: OnGone | None
    ) -> Answer:
        began, settings = time.monotonic(), self._settings
        if not self._permitted(headers):
            raise _NotPermittedError
        with self._models.get(name, version) as model:
            model.service.check_room()
            asked = parse_request(
                await read_body(headers, receive, settings), _text(headers, _LENGTH), max_images=settings.max_images
            )
            left = seconds_left(asked.parameters, _text(headers, b"x-request-timeout"), settings)
            left -= time.monotonic() - began
            with span(
                "edgepure.infer",
                lambda: {k.decode("latin-1"): v.decode("latin-1") for k, v in headers.items()},
                model=name,
            ):
                outputs, results = await _unless_gone(
                    receive, on_gone, answer(model, asked, settings, max(left, 0.001))
                )
            body, length = write_response(name, model.settings.version, asked, outputs)
            self._metrics.answered(model, "rest", results, time.monotonic() - began)
        if length is None:
            return 200, [(b"content-type", b"application/json")], body
        return 200, [(b"content-type", b"application/octet-stream"), (_LENGTH, b"%d" % length)], body

    def _permitted(self, headers: Headers) -> bool:
        secret = self._settings.token
        return secret is None or permitted(_text(headers, b"authorization") or "", secret)


class _NotPermittedError(Exception):
    """The token is missing, or wrong."""


def place(path: str) -> tuple[str, str] | None:
    """Model and version (empty: the newest) of a path of an infer request; None for other paths."""
    parts = path.split("/")
    if parts[:3] != ["", "v2", "models"] or parts[-1] != "infer" or not all(parts[3:]):
        return None
    if len(parts) == 5:
        return parts[3], ""
    return (parts[3], parts[5]) if len(parts) == 7 and parts[4] == "versions" else None


async def read_body(headers: Headers, receive: Receive, settings: ServeSettings) -> bytes:
    """All of a body.

    Raises:
        RequestError: it is compressed.
        BodySizeError: it is larger than it may be.
        OverdueError: the client sends too slowly.
        GoneError: it has gone.
    """
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise RequestError("the body is compressed; send it as it is", code="E-request-encoding")
    limit, said = settings.max_body, headers.get(b"content-length", b"")
    if said.isdigit() and int(said) > limit:
        await _swallow(receive, 4 * limit)
        raise BodySizeError(f"the body has {said[:20].decode()} bytes, at most {limit} may be sent", code="E-body-size")

    async def read() -> bytes:
        parts, size, more = [], 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise GoneError
            part, more = message.get("body", b""), message.get("more_body", False)
            size += len(part)
            if size > limit:
                raise BodySizeError(f"the body has more than {limit} bytes", code="E-body-size")
            parts.append(part)
        return b"".join(parts)

    mine, late = asyncio.current_task(), False
    assert mine is not None

    def give_up() -> None:
        nonlocal late
        late = True
        mine.cancel()

    timer = asyncio.get_running_loop().call_later(settings.patience, give_up)
    try:
        return await read()  # in this task: most bodies are there, and another one would cost more than they do
    except asyncio.CancelledError:
        if not late:
            raise
        raise OverdueError(
            f"the body did not come within {settings.patience:g} seconds; send it faster, or in smaller batches",
            code="E-request-slow",
        ) from None
    finally:
        timer.cancel()


async def _swallow(receive: Receive, most: int) -> None:
    """Read what a client sends in spite of its size, for a moment: a closed socket would hide the answer."""

    async def read() -> None:
        size, more = 0, True
        while more and size <= most:
            message = await receive()
            size += len(message.get("body", b""))
            more = message.get("more_body", False)

    with suppress(TimeoutError, asyncio.TimeoutError):
        await asyncio.wait_for(read(), 2.0)


async def _unless_gone(receive: Receive, on_gone: OnGone | None, work: Awaitable[Any]) -> Any:
    """The result of ``work``, which is cancelled when the client goes. A server that tells of that by no ``on_gone`` is
    asked for it."""
    mine, left, over = asyncio.current_task(), False, False
    assert mine is not None

    def gone() -> None:
        nonlocal left
        if not over:
            left = True
            mine.cancel()

    async def watched() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        gone()

    watch = None if on_gone else asyncio.ensure_future(watched())
    if on_gone:
        on_gone(gone)
    try:
        return await work
    except asyncio.CancelledError:
        if left:
            raise GoneError from None
        raise
    finally:
        over = True
        if watch is not None:
            watch.cancel()


def refusal_of(error: Exception, path: str) -> Answer:
    """What a client is told of an error. What an engine says may tell of the defence: the owner finds it in the log."""
    status, _ = outcome_of(error)
    if not isinstance(error, EdgepureError):
        log("failed", path=path, error=f"{type(error).__name__}: {error}")
        return refused(500, "the purification failed", "E-failed")
    if status == 500:
        log("failed", code=error.code, error=str(error))
        return refused(500, "the purification failed", error.code)
    return refused(status, str(error), error.code)


def refused(status: int, sentence: str, code: str) -> Answer:
    """Status, headers and body of a refusal."""
    sent = sentence.encode("utf-8", "backslashreplace").decode()  # a client may have sent halves of characters
    headers = [(b"content-type", b"application/json")]
    if status == 503:
        headers.append((b"retry-after", b"1"))
    return status, headers, json.dumps({"error": sent, "code": code}, ensure_ascii=False).encode()


def unpermitted() -> Answer:
    """The refusal of whoever has not the token."""
    return refused(401, "a valid token is needed: Authorization: Bearer TOKEN", "E-token")


def _text(headers: Headers, name: bytes) -> str | None:
    value = headers.get(name)
    return None if value is None else value.decode("latin-1")


def _length(body: bytes) -> tuple[bytes, bytes]:
    return b"content-length", b"%d" % len(body)
