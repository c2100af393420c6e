"""Refusals before a request is read, and clients that go: an ASGI application without sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
import pytest

from edgepure.errors import BusyError
from edgepure.purify.submissions import ResultFuture
from edgepure.serve.grpc_service import GrpcService
from edgepure.serve.health import Health
from edgepure.serve.metrics import Metrics
from edgepure.serve.models import Models
from edgepure.serve.rest import Rest
from edgepure.serve.settings import ModelSettings, ServeSettings

SETTINGS = ServeSettings(timeout=5.0, patience=0.5)
PATH = "/v2/models/m/infer"


class Slots:
    """A service that is full, or whose images are never done."""

    def __init__(self, *, full: bool) -> None:
        self._full = full
        self.futures: list[ResultFuture] = []

    def check_room(self) -> None:
        if self._full:
            raise BusyError("16 images are waiting, and no more may; try again later", code="E-service-full")

    def submit(self, image: Any, **more: Any) -> ResultFuture:
        self.futures.append(ResultFuture())
        return self.futures[-1]


class OneModel(Models):
    def __init__(self, slots: Slots) -> None:
        super().__init__(1.0)
        settings = ModelSettings("m", None)  # type: ignore[arg-type]
        self.one: Any = SimpleNamespace(service=slots, settings=settings, image_shape=(1, 2, 2), outputs=[])

    @contextmanager
    def get(self, name: str, version: str = "") -> Iterator[Any]:
        yield self.one


def parts(slots: Slots) -> tuple[Any, ...]:
    models = OneModel(slots)
    return models, Health(models, SETTINGS), Metrics(models), SETTINGS


def ask(app: Any, receive: Any, headers: Any = (), path: str = PATH, method: str = "POST") -> tuple[int, Any, bytes]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http", "http_version": "1.1", "method": method, "scheme": "http", "path": path, "raw_path": b"",
        "query_string": b"", "root_path": "", "headers": list(headers), "client": ("c", 1), "server": ("s", 1),
    }  # fmt: skip
    asyncio.run(app(scope, receive, send))
    return sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"]


async def never() -> Any:
    raise AssertionError("a request that is refused is not read")


@pytest.mark.parametrize("length", [b"5", b"99999999999"])
def test_a_full_server_refuses_before_it_reads(length: bytes) -> None:
    app = Rest(*parts(Slots(full=True))).app
    status, headers, body = ask(app, never, [(b"content-length", length)])
    assert status == 503 and headers[b"retry-after"] == b"1"
    assert json.loads(body)["code"] == "E-service-full" and int(headers[b"content-length"]) == len(body)


def test_but_never_without_a_token() -> None:
    models, health, metrics, _ = parts(Slots(full=True))
    app = Rest(models, health, metrics, ServeSettings(token="secret")).app
    assert ask(app, never)[0] == 401
    assert ask(app, never, [(b"authorization", b"Bearer secret")])[0] == 503


def test_at_the_door_it_is_refused_with_the_same_words_and_counted() -> None:
    models, health, metrics, _ = parts(Slots(full=True))
    rest = Rest(models, health, metrics, SETTINGS)
    scope = {"type": "http", "method": "POST", "path": PATH, "headers": []}
    status, headers, body = rest.refusal(scope)
    assert status == 503 and (b"retry-after", b"1") in headers and json.loads(body)["code"] == "E-service-full"
    assert body == ask(rest.app, never)[2]
    assert b'outcome="refused",protocol="rest",version=""} 2.0' in metrics.text()
    assert rest.refusal({**scope, "path": "/v2/models/m"}) is None and rest.refusal({**scope, "method": "GET"}) is None
    assert Rest(*parts(Slots(full=False))).refusal(scope) is None


def test_but_there_too_never_without_a_token() -> None:
    models, health, metrics, _ = parts(Slots(full=True))
    rest = Rest(models, health, metrics, ServeSettings(token="secret"))
    scope = {"type": "http", "method": "POST", "path": PATH, "headers": []}
    assert rest.refusal(scope) is None
    assert rest.refusal({**scope, "headers": [(b"authorization", b"Bearer secret")]}) is not None


@pytest.mark.parametrize("path", [("POST", PATH, 503), ("POST", "/v2/repository/index", 200)])
def test_tokens_are_bytes_and_the_first_one_counts(path: tuple[str, str, int]) -> None:
    method, where, passed = path
    models, health, metrics, _ = parts(Slots(full=True))
    app = Rest(models, health, metrics, ServeSettings(token="s\u00e9cret")).app
    good, bad = (b"authorization", "Bearer s\u00e9cret".encode()), (b"authorization", b"Bearer \xff")
    latin = (b"authorization", "bearer s\u00e9cret".encode("latin-1"))
    for headers, status in (([good], passed), ([latin], passed), ([good, bad], passed), ([bad, good], 401)):
        assert ask(app, never, headers, where, method)[0] == status


def test_over_grpc_no_image_is_looked_at() -> None:
    class AbortedError(Exception):
        pass

    async def abort(status: Any, words: str) -> None:
        raise AbortedError(status, words)

    class Message:
        model_name, model_version = "m", ""

        def __getattr__(self, name: str) -> Any:
            raise AssertionError(f"{name} of a request that is refused was read")

    infer = GrpcService(*parts(Slots(full=True)))._infer
    with pytest.raises(AbortedError) as caught:
        asyncio.run(infer(Message(), SimpleNamespace(abort=abort, invocation_metadata=tuple)))
    assert caught.value.args[0] is grpc.StatusCode.UNAVAILABLE and "E-service-full" in caught.value.args[1]


def test_a_client_that_goes_takes_its_images_with_it() -> None:
    slots = Slots(full=False)
    tensor = {"name": "image", "datatype": "FP32", "shape": [2, 1, 2, 2], "data": np.zeros(8).tolist()}
    messages = [
        {"type": "http.request", "body": json.dumps({"inputs": [tensor]}).encode(), "more_body": False},
        {"type": "http.disconnect"},
    ]

    async def receive() -> Any:
        await asyncio.sleep(0.05)
        return messages.pop(0)

    assert ask(Rest(*parts(slots)).app, receive)[0] == 499
    assert len(slots.futures) == 2 and all(future.cancelled() for future in slots.futures)


def test_a_client_that_goes_while_it_sends() -> None:
    async def receive() -> Any:
        return {"type": "http.disconnect"}

    assert ask(Rest(*parts(Slots(full=False))).app, receive)[0] == 499


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        (PATH, "GET", 405),
        ("/v2/models//infer", "POST", 404),
        ("/v2/models/m/versions/infer", "POST", 405),
        ("/v2/models/m/versions//infer", "POST", 404),
        ("/v2/models/m/versions/1/infer", "POST", 503),
        ("/v2/models/infer/infer", "POST", 503),
        ("/v2/models/m/infer/", "POST", 307),
        ("/v2/models/m/infer\n", "POST", 404),
        ("/v2/models/m/versions/1/infer\n", "POST", 404),
    ],
)
def test_which_addresses_are_infer_requests(path: str, method: str, status: int) -> None:
    found, _, body = ask(Rest(*parts(Slots(full=True))).app, never, path=path, method=method)
    assert found == status
    if status in (404, 405):
        assert json.loads(body)["code"] in ("E-address", "E-model-unknown")


def test_a_body_that_is_compressed_says_so() -> None:
    status, _, body = ask(Rest(*parts(Slots(full=False))).app, never, [(b"content-encoding", b"gzip")])
    assert (status, json.loads(body)["code"]) == (400, "E-request-encoding")


async def endless() -> Any:
    if not SENT:
        SENT.append(True)
        tensor = {"name": "image", "datatype": "FP32", "shape": [1, 2, 2], "data": [0.0] * 4}
        return {"type": "http.request", "body": json.dumps({"inputs": [tensor]}).encode(), "more_body": False}
    return await asyncio.Event().wait()


SENT: list[bool] = []


@pytest.mark.parametrize("ends", ["server", "model"])
def test_a_client_that_stays_is_told_that_the_server_or_the_model_ends(ends: str) -> None:
    slots = Slots(full=False)
    app = Rest(*parts(slots)).app
    SENT.clear()

    async def ended(scope: Any, receive: Any, send: Any) -> None:
        task = asyncio.ensure_future(app(scope, receive, send))
        while not slots.futures:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        assert task.cancel() if ends == "server" else slots.futures[0].cancel()
        await task

    status, _, body = ask(ended, endless)
    assert (status, json.loads(body)["code"]) == (503, "E-service-closed")


def test_what_anybody_makes_up_is_no_label() -> None:
    models, health, metrics, settings = parts(Slots(full=True))
    models._settings["m", "1"] = models.one.settings
    app = Rest(models, health, metrics, settings).app
    for path in (PATH, *(f"/v2/models/m/versions/{i}/infer" for i in range(5)), "/v2/models/x/infer"):
        assert ask(app, never, path=path)[0] == 503
    series = [line for line in metrics.text().decode().splitlines() if line.startswith("edgepure_requests_total{")]
    assert len(series) == 3 and sum(float(line.split()[-1]) for line in series) == 7
