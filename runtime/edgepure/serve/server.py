"""From settings to a running server, and to its end: SIGTERM drains, a second one ends at once."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import grpc.aio
import uvicorn

from ..errors import EdgepureError
from .connection import Answer, patient
from .grpc_service import GrpcService
from .health import Health
from .logs import log, take_logs_of
from .metrics import Metrics
from .models import Models
from .rest import Rest
from .settings import ModelSettings, ServeSettings

#: Seconds for which a thread may keep others from computing in Python.
_SWITCH = 1e-3


def serve(
    bundles: Sequence[ModelSettings], settings: ServeSettings, on_ready: Callable[[str], None] | None = None
) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        bundles: what is served; every one proves itself before the first request is taken.
        on_ready: called with the address of REST.

    Raises:
        EdgepureError: a bundle cannot be opened or does not prove itself, or an address is in use.
    """
    models = Models(settings.drain, settings.show)
    try:
        for bundle in bundles:
            models.add(bundle)
            log("loaded", model=bundle.name, version=bundle.version, provider=bundle.provider)
        _run(_serve(models, settings, on_ready))
    finally:
        models.close()
    log("ended")


def _run(main: Coroutine[Any, Any, None]) -> None:
    """Run it in a process that is all its own.

    Between two UNet calls the thread of the slots needs Python's lock, and so does the loop that speaks with clients:
    whoever wants it gets it at once, and not after Python's 5 ms.
    """
    sys.setswitchinterval(_SWITCH)
    take_logs_of("uvicorn", "asyncio", "grpc")
    try:
        import uvloop
    except ImportError:  # there is none for Windows
        asyncio.run(main)
    else:
        uvloop.run(main)


async def _serve(models: Models, settings: ServeSettings, on_ready: Callable[[str], None] | None) -> None:
    models.attach(asyncio.get_running_loop())
    health = Health(models, settings)
    metrics = Metrics(models)
    front = Rest(models, health, metrics, settings)
    rest = _server(front.app, settings, front.refusal)
    remote, grpc_port = await _start_grpc(GrpcService(models, health, metrics, settings), settings)
    stop, watch = asyncio.Event(), asyncio.create_task(health.watch())
    _listen(stop)
    listening = asyncio.create_task(rest.serve(sockets=[_bind(settings)]))
    try:
        while not rest.started:
            if listening.done():
                listening.result()
            await asyncio.sleep(0.01)
        address = rest.servers[0].sockets[0].getsockname()
        log("ready", host=address[0], port=address[1], grpc_port=grpc_port)
        if on_ready is not None:
            on_ready(f"http://{address[0]}:{address[1]}")
        await stop.wait()
        log("draining", seconds=settings.drain)
        health.draining = True  # a balancer sees it before the socket closes
        rest.should_exit = True
        await asyncio.gather(listening, *([remote.stop(settings.drain)] if remote else []))
    finally:
        watch.cancel()


def _listen(stop: asyncio.Event) -> None:
    """The first signal asks to end, the second ends at once."""

    def asked() -> None:
        if stop.is_set():
            log("ended at once")
            os._exit(128 + signal.SIGTERM)
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked)


async def _start_grpc(service: GrpcService, settings: ServeSettings) -> tuple[Any, int | None]:
    """The server and its port; None and None if there is to be none."""
    if settings.grpc_port is None:
        return None, None
    limits = [
        ("grpc.max_receive_message_length", settings.max_body),
        ("grpc.max_concurrent_streams", settings.connections),
        ("grpc.so_reuseport", 0),
    ]
    server = grpc.aio.server(options=limits, maximum_concurrent_rpcs=settings.connections)
    server.add_generic_rpc_handlers((service.handler(),))
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    try:
        port = server.add_insecure_port(f"{host}:{settings.grpc_port}")
    except RuntimeError:
        port = 0
    if port == 0:
        raise EdgepureError(
            f"gRPC cannot listen on {host}:{settings.grpc_port}; choose another --grpc-port", code="E-serve-address"
        )
    await server.start()
    return server, port


def _bind(settings: ServeSettings) -> socket.socket:
    """The socket of REST.

    Raises:
        EdgepureError: the address is in use, or is none of this machine.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # with its protocol named, asyncio switches Nagle's algorithm off: an answer in two parts would wait 40 ms
    found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((settings.host, settings.port))
    except OSError as error:
        found.close()
        raise EdgepureError(
            f"cannot listen on {settings.host}:{settings.port} ({error.strerror or error}); choose another --port",
            code="E-serve-address",
        ) from None
    return found


class _Server(uvicorn.Server):
    """uvicorn without its own handling of signals."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _server(app: Any, settings: ServeSettings, refusal: Callable[[Any], Answer | None] | None = None) -> _Server:
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=patient(settings.patience, refusal, settings.connections),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=settings.connections + 1,  # those that answer; of the others the oldest ends
        backlog=settings.connections,
        timeout_keep_alive=int(max(settings.patience, 1)),
        timeout_graceful_shutdown=int(max(settings.drain, 1)),
    )
    return _Server(config)
