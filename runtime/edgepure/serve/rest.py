"""The Open Inference Protocol v2 over HTTP, and what stands beside it: health, metrics, the page."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ..errors import EdgepureError, OverdueError
from .answer import answer, seconds_left
from .health import Health
from .logs import log
from .metrics import Metrics
from .models import Models, UnknownModelError, metadata
from .openapi import document
from .outcome import BodySizeError, outcome_of, permitted
from .page import PAGE, pictures
from .protocol import LENGTH_HEADER, parse_request, write_response
from .settings import ServeSettings
from .traces import span

Endpoint = Callable[[Request], Awaitable[Response]]
EXTENSIONS = ["binary_tensor_data"]


class Rest:
    """The endpoints of one server."""

    def __init__(self, models: Models, health: Health, metrics: Metrics, settings: ServeSettings) -> None:
        self._models, self._health, self._metrics, self._settings = models, health, metrics, settings
        base = "/v2/models/{name}"
        routes = [
            Route("/v2/health/live", self._live),
            Route("/v2/health/ready", self._ready),
            Route("/v2", self._server),
            Route("/metrics", self._scrape),
            Route("/openapi.json", self._openapi),
            Route("/v2/repository/index", self._guarded(self._index), methods=["POST"]),
            Route("/v2/repository/models/{name}/load", self._guarded(self._load, admin=True), methods=["POST"]),
            Route("/v2/repository/models/{name}/unload", self._guarded(self._unload, admin=True), methods=["POST"]),
        ]
        for path in (base, base + "/versions/{version}"):
            routes += [
                Route(path, self._guarded(self._model)),
                Route(path + "/ready", self._model_ready),
                Route(path + "/infer", self._guarded(self._infer), methods=["POST"]),
            ]
        if settings.page:
            routes += [
                Route("/", self._page),
                Route(base + "/pictures", self._guarded(self._pictures), methods=["POST"]),
            ]
        self.app = Starlette(routes=routes)

    # ---- health and metadata ----------------------------------------------------------------------------------------

    async def _live(self, request: Request) -> Response:
        return JSONResponse({"live": True})

    async def _ready(self, request: Request) -> Response:
        ready = self._health.all_ready()
        return JSONResponse({"ready": ready}, 200 if ready else 503)

    async def _server(self, request: Request) -> Response:
        from .. import __version__

        return JSONResponse({"name": "edgepure", "version": __version__, "extensions": EXTENSIONS})

    async def _model_ready(self, request: Request) -> Response:
        try:
            with self._models.get(request.path_params["name"], request.path_params.get("version", "")) as model:
                ready = self._health.ready(model)
        except UnknownModelError as error:
            return _failure(error)
        return JSONResponse({"name": model.settings.name, "ready": ready}, 200 if ready else 503)

    async def _model(self, request: Request) -> Response:
        name = request.path_params["name"]
        with self._models.get(name, request.path_params.get("version", "")) as model:
            versions = self._models.versions(name)
            return JSONResponse(metadata(model, versions, self._settings.max_images))

    async def _index(self, request: Request) -> Response:
        known = self._models.known().items()
        return JSONResponse(
            [
                {"name": name, "version": version, "state": "UNAVAILABLE" if model is None else "READY"}
                for (name, version), model in known
            ]
        )

    async def _load(self, request: Request) -> Response:
        try:
            await run_in_threadpool(self._models.load, request.path_params["name"])
        except UnknownModelError:
            raise
        except EdgepureError as error:  # the old one goes on; the owner is told what is wrong with the new one
            log("not loaded", model=request.path_params["name"], code=error.code, error=str(error))
            return _refusal(400, str(error), error.code)
        log("loaded", model=request.path_params["name"])
        return JSONResponse({})

    async def _unload(self, request: Request) -> Response:
        await run_in_threadpool(self._models.unload, request.path_params["name"])
        log("unloaded", model=request.path_params["name"])
        return JSONResponse({})

    async def _scrape(self, request: Request) -> Response:
        return Response(self._metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def _openapi(self, request: Request) -> Response:
        return JSONResponse(document(self._settings))

    # ---- inference --------------------------------------------------------------------------------------------------

    async def _infer(self, request: Request) -> Response:
        name, version = request.path_params["name"], request.path_params.get("version", "")
        began = time.monotonic()
        try:
            with self._models.get(name, version) as model:
                asked = parse_request(
                    await self._body(request),
                    request.headers.get(LENGTH_HEADER),
                    max_images=self._settings.max_images,
                )
                left = seconds_left(asked.parameters, request.headers.get("x-request-timeout"), self._settings)
                left -= time.monotonic() - began
                with span("edgepure.infer", request.headers, model=name):
                    outputs, results = await _unless_gone(
                        request, answer(model, asked, self._settings, max(left, 0.001))
                    )
                body, length = write_response(name, model.settings.version, asked, outputs)
                self._metrics.answered(model, "rest", results, time.monotonic() - began)
        except (asyncio.CancelledError, ClientDisconnect):
            self._metrics.ended(name, version, "rest", "cancelled")
            return Response(status_code=499)
        except Exception as error:
            outcome = outcome_of(error)[1]
            self._metrics.ended(name, version, "rest", outcome)
            if outcome == "failed":
                self._health.doubt()
            raise
        if length is None:
            return Response(body, media_type="application/json")
        return Response(body, headers={LENGTH_HEADER: str(length)}, media_type="application/octet-stream")

    async def _body(self, request: Request) -> bytes:
        """All of it.

        Raises:
            BodySizeError: it is larger than it may be.
            OverdueError: the client sends too slowly.
        """
        limit = self._settings.max_body
        said = request.headers.get("content-length", "")
        if said.isdigit() and int(said) > limit:
            await self._swallow(request)
            raise BodySizeError(f"the body has {said[:20]} bytes, at most {limit} may be sent", code="E-body-size")

        async def read() -> bytes:
            parts, size = [], 0
            async for part in request.stream():
                size += len(part)
                if size > limit:
                    raise BodySizeError(f"the body has more than {limit} bytes", code="E-body-size")
                parts.append(part)
            return b"".join(parts)

        try:
            return await asyncio.wait_for(read(), self._settings.patience)
        except (TimeoutError, asyncio.TimeoutError):
            raise OverdueError(
                f"the body did not come within {self._settings.patience:g} seconds; "
                "send it faster, or in smaller batches",
                code="E-request-slow",
            ) from None

    async def _swallow(self, request: Request) -> None:
        """Read what a client sends in spite of its size, for a moment: a closed socket would hide the answer."""

        async def read() -> None:
            size = 0
            async for part in request.stream():
                size += len(part)
                if size > 4 * self._settings.max_body:
                    return

        try:
            await asyncio.wait_for(read(), 2.0)
        except (TimeoutError, asyncio.TimeoutError, ClientDisconnect):
            return

    # ---- the page ---------------------------------------------------------------------------------------------------

    async def _page(self, request: Request) -> Response:
        headers = {"Content-Security-Policy": "default-src 'self' 'unsafe-inline' data:; frame-ancestors 'none'"}
        return Response(PAGE, media_type="text/html; charset=utf-8", headers=headers)

    async def _pictures(self, request: Request) -> Response:
        with self._models.get(request.path_params["name"]) as model:
            data = await self._body(request)
            future = await run_in_threadpool(
                model.service.submit, data, resize=True, deadline=time.monotonic() + self._settings.timeout
            )
            try:
                result = await asyncio.wait_for(asyncio.wrap_future(future), self._settings.timeout)
            except (TimeoutError, asyncio.TimeoutError):
                raise OverdueError(
                    "the answer was not there in time; ask again later, or give it more time", code="E-deadline-answer"
                ) from None
            finally:
                future.cancel()
            return JSONResponse(await run_in_threadpool(pictures, model, data, result))

    # ---- who may ----------------------------------------------------------------------------------------------------

    def _guarded(self, endpoint: Endpoint, *, admin: bool = False) -> Endpoint:
        """Errors in the protocol's form, behind the token if there is one. Without an administrator's token nobody is
        one."""
        secret = self._settings.admin_token if admin else self._settings.token

        async def guarded(request: Request) -> Response:
            if admin and secret is None:
                return _refusal(403, "models are loaded and unloaded by the owner alone", "E-admin")
            if secret is not None and not permitted(request.headers.get("authorization", ""), secret):
                return _refusal(401, "a valid token is needed: Authorization: Bearer TOKEN", "E-token")
            try:
                return await endpoint(request)
            except EdgepureError as error:
                return _failure(error)
            except ClientDisconnect:
                return Response(status_code=499)
            except Exception as error:
                log("failed", path=request.url.path, error=f"{type(error).__name__}: {error}")
                return _refusal(500, "the purification failed", "E-failed")

        return guarded


def _failure(error: EdgepureError) -> Response:
    status, _ = outcome_of(error)
    if status == 500:  # what an engine says may tell of the defence; the owner finds it in the log
        log("failed", code=error.code, error=str(error))
        return _refusal(500, "the purification failed", error.code)
    headers = {"Retry-After": "1"} if status == 503 else None
    return _refusal(status, str(error), error.code, headers)


def _refusal(status: int, sentence: str, code: str, headers: dict[str, str] | None = None) -> Response:
    sent = sentence.encode("utf-8", "backslashreplace").decode()  # a client may have sent halves of characters
    return JSONResponse({"error": sent, "code": code}, status, headers=headers)


async def _unless_gone(request: Request, work: Awaitable[Any]) -> Any:
    """The result of ``work``, which is cancelled when the client goes.

    Raises:
        ClientDisconnect: it has gone.
    """

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    task, watch = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait((task, watch), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        watch.cancel()
        if not task.done():
            task.cancel()
