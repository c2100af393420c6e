"""A strict stand-in of Triton's Python backend: what a model of it sees."""

from __future__ import annotations

import json
import sys
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgepure.serve.triton import TritonPythonModel


class Tensor:
    def __init__(self, name: str, value: Any) -> None:
        self.name, self.value = name, value

    def as_numpy(self) -> Any:
        return self.value


class TritonError:
    INVALID_ARG, UNAVAILABLE, CANCELLED, INTERNAL = range(4)

    def __init__(self, message: str, code: int) -> None:
        self.message, self.code = message, code


class Response:
    def __init__(self, output_tensors: list[Tensor] | None = None, error: TritonError | None = None) -> None:
        self.outputs = {tensor.name: tensor.value for tensor in output_tensors or []}
        self.error = error


class Request:
    """Strict: what a real request has not, this has not either."""

    def __init__(self, cancelled: bool = False, timeout: int = 0, **inputs: Any) -> None:
        self._inputs, self._cancelled, self._timeout = inputs, cancelled, timeout
        self.answered: Future[Response] = Future()

    def is_cancelled(self) -> bool:
        return self._cancelled

    def timeout(self) -> int:
        return self._timeout

    def get_response_sender(self) -> Any:
        def send(response: Response, flags: int) -> None:
            assert flags == 1
            self.answered.set_result(response)

        return SimpleNamespace(send=send)


def plug_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `triton_python_backend_utils` be this."""
    module = SimpleNamespace(
        TritonError=TritonError,
        InferenceResponse=Response,
        Tensor=Tensor,
        TRITONSERVER_RESPONSE_COMPLETE_FINAL=1,
        get_input_tensor_by_name=lambda request, name: (
            Tensor(name, request._inputs[name]) if name in request._inputs else None
        ),
    )
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", module)


def opened(place: Path) -> TritonPythonModel:
    """The model as Triton opens it: the text form of the configuration becomes JSON."""
    text = (place / "config.pbtxt").read_text()
    parameters = {}
    for line in text.splitlines():
        if line.startswith("parameters"):
            _, key, _, value, _ = line.split('"')
            parameters[key] = {"string_value": value}
    config: dict[str, Any] = {"parameters": parameters}
    if "decoupled: true" in text:
        config["model_transaction_policy"] = {"decoupled": True}
    model = TritonPythonModel()
    model.initialize(
        {
            "model_config": json.dumps(config),
            "model_repository": str(place),
            "model_version": "1",
            "model_name": place.name,
        }
    )
    return model
