"""Requests to `edgepure serve`, through REST and through gRPC, up to the answer."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import edgepure
from edgepure.errors import RequestError
from edgepure.serve.grpc_service import GrpcService
from edgepure.serve.health import Health
from edgepure.serve.messages import MESSAGES
from edgepure.serve.metrics import Metrics
from edgepure.serve.models import Models
from edgepure.serve.rest import Rest
from edgepure.serve.settings import ModelSettings, ServeSettings

from .kind import Kind
from .mutate import NUMBERS, TEXTS, as_json, changed, damaged
from .pictures import image_files

#: Statuses that blame the client.
_CLIENT = (400, 404, 405, 413, 499, 503, 504)


class _Server(Kind):
    """A server of the digits in this process, without sockets."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        shown = frozenset({"probabilities", "flags", "purified", "norms"})
        self._models = Models(1.0, shown)
        self._models.add(ModelSettings("digits", edgepure.demo_bundle(), preset="uniform", votes=1, threads=1))
        self.settings = ServeSettings(show=shown, page=True, patience=5.0, timeout=5.0, max_body=1 << 20)
        self.parts = (self._models, Health(self._models, self.settings), Metrics(self._models), self.settings)
        self.loop = asyncio.new_event_loop()
        self.image = edgepure.demo_images().clean[0]

    def run(self, work: Any) -> Any:
        """The result of a coroutine; what the server would write into its log goes nowhere."""
        with contextlib.redirect_stderr(io.StringIO()) as log:
            found = self.loop.run_until_complete(work)
        if '"event": "failed"' in log.getvalue():
            raise RuntimeError(log.getvalue()[-1500:])
        return found


class RestBodies(_Server):
    """HTTP requests."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._app = Rest(*self.parts).app
        self._files = image_files()

    def _body(self, random: Random) -> tuple[bytes, list[tuple[bytes, bytes]]]:
        tensor: dict[str, Any] = {"name": "image", "shape": [1, 1, 16, 16], "datatype": "FP32"}
        document: dict[str, Any] = {"id": "7", "parameters": {"timeout": 3000000, "priority": 1}, "inputs": [tensor]}
        document["outputs"] = [{"name": "label"}, {"name": "purified", "parameters": {"binary_data": True}}]
        raw = b""
        kind = random.randrange(4)
        if kind == 0:
            tensor["data"] = self.image.reshape(-1).tolist()
        elif kind == 1:
            raw = self.image.astype("<f4").tobytes()
            tensor["parameters"] = {"binary_data_size": len(raw)}
        elif kind == 2:
            tensor |= {"shape": [1], "datatype": "BYTES"}
            tensor["data"] = [base64.b64encode(random.choice(self._files)).decode()]
        else:
            tensor |= {"shape": [1, 16, 16, 1], "datatype": "UINT8", "data": [7] * 256}
        text = as_json(changed(document, random) if random.random() < 0.8 else document)
        headers = [(b"inference-header-content-length", str(len(text)).encode())] if raw else []
        if random.random() < 0.15:
            value = str(random.choice((*NUMBERS, *TEXTS)))[:80].encode("latin-1", "replace").replace(b"\n", b"")
            headers = [(random.choice((b"inference-header-content-length", b"x-request-timeout")), value)]
        body = text + raw
        return (damaged(body, random, body) if random.random() < 0.25 else body), headers

    def attempt(self, random: Random) -> None:
        body, headers = self._body(random)
        path = random.choice(
            ("/infer", "/infer", "/infer", "/infer", "/versions/1/infer", "/versions/x/infer", "/pictures")
        )
        messages = [{"type": "http.request", "body": body, "more_body": False}]
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            if messages:
                return messages.pop()
            await asyncio.sleep(60.0)
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(dict(message))

        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
            "path": f"/v2/models/digits{path}", "raw_path": path.encode(), "query_string": b"", "root_path": "",
            "headers": [(b"content-length", str(len(body)).encode()), *headers], "client": ("c", 1), "server": ("s", 1),
        }  # fmt: skip
        self.run(self._app(scope, receive, send))
        status = sent[0]["status"]
        if status == 200:
            return
        if status not in _CLIENT:
            raise RuntimeError(f"status {status}: {sent[1]['body'][:500]!r}")
        answered = json.loads(sent[1]["body"] or b'{"error": "x"}') if status not in (405, 499) else {"error": "x"}
        raise RequestError(answered["error"])


class GrpcMessages(_Server):
    """gRPC messages."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        found = (
            GrpcService(*self.parts)
            .handler()
            .service(SimpleNamespace(method="/inference.GRPCInferenceService/ModelInfer", invocation_metadata=()))
        )
        self._handler: Any = found
        self._files = image_files()

    def _message(self, random: Random) -> Any:
        message = MESSAGES["ModelInferRequest"](model_name="digits", id="7")
        shape = [random.choice((1, 1, 16, 2**32, 2**62, 0, -1, 70)) for _ in range(random.randrange(5))]
        whole = random.random() < 0.6
        datatype = random.choice(("FP32", "UINT8", "BYTES", "INT64", "FP16", "BOOL", "x"))
        if whole:
            shape = {"UINT8": [1, 16, 16, 1], "BYTES": [1]}.get(datatype, [1, 1, 16, 16])
        tensor = message.inputs.add(name=random.choice(("image", "image", "x")), datatype=datatype, shape=shape)
        count = random.choice((0, 1, 256, 256))
        if random.random() < 0.5:
            size = {"FP32": 4, "FP16": 2, "INT64": 8}.get(datatype, 1)
            message.raw_input_contents.append(random.randbytes(count * size))
        elif datatype == "BYTES":
            tensor.contents.bytes_contents.extend([random.choice(self._files)] * random.choice((1, 1, 2)))
        elif datatype == "UINT8":
            tensor.contents.uint_contents.extend([random.choice((0, 255, 256, 2**32 - 1))] * count)
        else:
            tensor.contents.fp32_contents.extend([random.choice((0.5, 1.0, float("nan"), 1e38))] * count)
        if random.random() < 0.3:
            message.parameters["timeout"].int64_param = random.choice((0, 1, -1, 2**63 - 1, 3_000_000))
        if random.random() < 0.2:
            message.parameters["priority"].string_param = random.choice(("1", "", "\0"))
        return message

    def attempt(self, random: Random) -> None:
        from google.protobuf.message import DecodeError

        data = self._message(random).SerializeToString()
        if random.random() < 0.3:
            data = damaged(data, random, data)
        try:
            request = self._handler.request_deserializer(data)
        except DecodeError as error:  # grpc answers it
            raise RequestError(str(error) or "no message") from None
        self._handler.response_serializer(self.run(self._handler.unary_unary(request, _Context(random))))


class _Context:
    """What a handler sees of its call."""

    def __init__(self, random: Random) -> None:
        self._left = random.choice((None, 5.0, 0.0, -1.0))

    def time_remaining(self) -> float | None:
        return self._left

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return ()

    async def abort(self, status: Any, words: str) -> Any:
        if status.name in ("INTERNAL", "UNKNOWN"):
            raise RuntimeError(f"{status.name}: {words}")
        raise RequestError(words)
