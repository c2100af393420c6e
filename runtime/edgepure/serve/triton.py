"""A bundle as a model of NVIDIA Triton's Python backend: what the ``model.py`` of a repository imports.

The loop stays in one process: a call of Triton's own for every row would cost more than a small network's row. Images
of all requests that are inside share the slots, as in `edgepure.Service`. A model that is ``decoupled`` (gRPC streams)
takes requests at any time and answers each when it is done; an ordinary one gets the requests that wait together, and
Triton sends their answers when all of them are there.

Triton calls ``initialize``, ``execute`` and ``finalize``; `triton_python_backend_utils` exists in its process only.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from concurrent.futures import Future, wait
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from ..errors import BusyError, EdgepureError, ImageError, OverdueError, RequestError
from .models import Model
from .protocol import Tensor
from .settings import ModelSettings

#: Seconds that a request may take when it names no timeout; as `edgepure serve` has it.
DEFAULT_TIMEOUT = 30.0


class TritonPythonModel:
    """One model instance: a bundle on an engine, with the service that runs its slots."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the bundle beside ``model.py`` and put its self-test through the slots.

        Args:
            args: Triton's: the configuration as JSON, the repository, the version.

        Raises:
            EdgepureError: the bundle or the engine is not as it should be; Triton calls the model unavailable then,
                with this sentence.
        """
        import triton_python_backend_utils as utils  # Triton puts it into its own process

        self._utils = utils
        config = json.loads(args["model_config"])
        chosen = {name: value["string_value"] for name, value in config.get("parameters", {}).items()}
        folder = Path(args["model_repository"]) / args["model_version"] / "bundle"
        self._decoupled = bool(config.get("model_transaction_policy", {}).get("decoupled", False))
        self._model = Model(
            ModelSettings(
                args["model_name"],
                folder,
                args["model_version"],
                preset=chosen.get("preset"),
                votes=int(chosen["votes"]) if "votes" in chosen else None,
                provider=chosen.get("provider", "cpu"),
                precision=chosen.get("precision", "fp32"),
                threads=int(chosen["threads"]) if "threads" in chosen else None,
                slots=int(chosen.get("slots", "8")),
                waiting=int(chosen.get("waiting", "64")),
            ),
            frozenset(chosen.get("show", "").split()),
        )

    def execute(self, requests: Sequence[Any]) -> list[Any] | None:
        """Put the images of the requests into the slots.

        Returns:
            A response a request, in their order; None where the model is decoupled and each goes on its own.
        """
        if self._decoupled:
            for request in requests:
                sender = request.get_response_sender()
                futures = self._submit(request)
                _when_done(futures, partial(self._send, sender, futures))
            return None
        everything = [self._submit(request) for request in requests]
        wait([future for futures in everything for future in futures])
        return [self._respond(futures) for futures in everything]

    def finalize(self) -> None:
        """End the service and the engine."""
        self._model.close()

    def _submit(self, request: Any) -> list[Future[Any]]:
        """A future an image; one that has failed already where the request is not one of images."""
        try:
            if request.is_cancelled():
                raise OverdueError("the client has gone, so nobody waits for the answer", code="E-request-cancelled")
            microseconds = request.timeout()
            deadline = time.monotonic() + (1e-6 * microseconds if microseconds else DEFAULT_TIMEOUT)
            return [self._model.service.submit(item, deadline=deadline) for item in self._images(request)]
        except EdgepureError as error:
            failed: Future[Any] = Future()
            failed.set_exception(error)
            return [failed]

    def _images(self, request: Any) -> list[Any]:
        """What ``image`` (FP32 [n, C, H, W] in [0, 1]) or ``file`` (BYTES [n, 1], image files) holds.

        Raises:
            RequestError: neither or both are there.
        """
        tensors = [self._utils.get_input_tensor_by_name(request, name) for name in ("image", "file")]
        found = [tensor.as_numpy() for tensor in tensors if tensor is not None]
        if len(found) != 1:
            raise RequestError("expected one input, image (FP32) or file (BYTES)", code="E-request-input")
        return list(found[0].reshape(-1)) if found[0].dtype == np.object_ else list(found[0])

    def _respond(self, futures: list[Future[Any]]) -> Any:
        """The response of a request whose futures are done."""
        utils = self._utils
        try:
            results = [future.result() for future in futures]
        except EdgepureError as error:
            sentence = f"{error.code}: {error}"
            return utils.InferenceResponse(error=utils.TritonError(sentence, _triton_code(utils, error)))
        outputs = {output.name: _tensor(output.make(results)) for output in self._model.outputs}
        return utils.InferenceResponse(output_tensors=[utils.Tensor(name, value) for name, value in outputs.items()])

    def _send(self, sender: Any, futures: list[Future[Any]]) -> None:
        sender.send(self._respond(futures), flags=self._utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)


def _tensor(found: Tensor) -> Any:
    """As Triton has it: bytes are objects, and an image has at least one number."""
    array = np.array(found, np.object_) if isinstance(found, list) else found
    return array[:, None] if array.ndim == 1 else array


def _when_done(futures: list[Future[Any]], call: Any) -> None:
    """Call once, when the last of the futures is done."""
    left, lock = len(futures), Lock()

    def one(_: Future[Any]) -> None:
        nonlocal left
        with lock:
            left -= 1
            last = left == 0
        if last:
            call()

    for future in futures:
        future.add_done_callback(one)


def _triton_code(utils: Any, error: EdgepureError) -> int:
    """Which of Triton's codes a client sees."""
    codes = utils.TritonError
    if isinstance(error, (RequestError, ImageError)):
        return int(codes.INVALID_ARG)
    if isinstance(error, BusyError):
        return int(codes.UNAVAILABLE)
    return int(codes.CANCELLED if isinstance(error, OverdueError) else codes.INTERNAL)
