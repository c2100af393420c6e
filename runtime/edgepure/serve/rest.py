"""The Open Inference Protocol v2 over HTTP, and what stands beside it: health, metrics, the page."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ..errors import EdgepureError, OverdueError
from .health import Health
from .infer import GoneError, Infer, Receive, Scope, Send, read_body, refusal_of, refused, unpermitted
from .logs import log
from .metrics import Metrics
from .models import Models, UnknownModelError, metadata
from .openapi import document
from .outcome import permitted
from .page import PAGE, pictures
from .settings import ServeSettings

Endpoint = Callable[[Request], Awaitable[Response]]
EXTENSIONS = ["binary_tensor_data"]


class Rest:
    """The endpoints of one server."""

    def __init__(self, models: Models, health: Health, metrics: Metrics, settings: ServeSettings) -> None:
        self._models, self._health, self._metrics, self._settings = models, health, metrics, settings
        base = "/v2/models/{name}"
        infer = Infer(models, health, metrics, settings)
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
                Route(path + "/infer", self._nowhere, methods=["POST"]),  # those that it is are `Infer`'s
            ]
        if settings.page:
            routes += [
                Route("/", self._page),
                Route(base + "/pictures", self._guarded(self._pictures), methods=["POST"]),
            ]
        routed = Starlette(routes=routes, exception_handlers={HTTPException: _misdirected})

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await (infer if infer.takes(scope) else routed)(scope, receive, send)

        self.app, self.refusal = app, infer.refusal

    # ---- health and metadata ----------------------------------------------------------------------------------------

    async def _live(self, request: Request) -> Response:
        return JSONResponse({"live": True})

    async def _ready(self, request: Request) -> Response:
        ready = self._health.all_ready()
        return JSONResponse({"ready": ready}, 200 if ready else 503)

    async def _server(self, request: Request) -> Response:
        from .. import __version__

        return JSONResponse({"name": "edgepure", "version": __version__, "extensions": EXTENSIONS})

    async def _nowhere(self, request: Request) -> Response:
        raise HTTPException(404)

    async def _model_ready(self, request: Request) -> Response:
        try:
            with self._models.get(request.path_params["name"], request.path_params.get("version", "")) as model:
                ready = self._health.ready(model)
        except UnknownModelError as error:
            return _response(*refusal_of(error, request.url.path))
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
            return _response(*refused(400, str(error), error.code))
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

    # ---- the page ---------------------------------------------------------------------------------------------------

    async def _page(self, request: Request) -> Response:
        headers = {"Content-Security-Policy": "default-src 'self' 'unsafe-inline' data:; frame-ancestors 'none'"}
        return Response(PAGE, media_type="text/html; charset=utf-8", headers=headers)

    async def _pictures(self, request: Request) -> Response:
        with self._models.get(request.path_params["name"]) as model:
            data = await read_body(dict(request.headers.raw), request.receive, self._settings)
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
                return _response(*refused(403, "models are loaded and unloaded by the owner alone", "E-admin"))
            if secret is not None and not permitted(request.headers.get("authorization", ""), secret):
                return _response(*unpermitted())
            try:
                return await endpoint(request)
            except GoneError:
                return Response(status_code=499)
            except Exception as error:
                return _response(*refusal_of(error, request.url.path))

        return guarded


async def _misdirected(request: Request, error: Exception) -> Response:
    """An address or a method that is not there, in the protocol's form."""
    assert isinstance(error, HTTPException)
    status = error.status_code
    words = "this address takes other methods" if status == 405 else "there is nothing at this address"
    response = _response(*refused(status, f"{words}; /openapi.json names what there is", "E-address"))
    response.headers.update(error.headers or {})
    return response


def _response(status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> Response:
    return Response(body, status, {name.decode(): value.decode() for name, value in headers})
