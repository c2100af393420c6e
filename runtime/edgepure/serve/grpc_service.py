"""The Open Inference Protocol v2 over gRPC: the same models, the same answers."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping
from typing import Any

import grpc
import grpc.aio
import numpy as np

from ..errors import EdgepureError, RequestError
from .answer import answer, seconds_left
from .health import Health
from .logs import log
from .messages import MESSAGES, METHODS, SERVICE
from .metrics import Metrics
from .models import Models, UnknownModelError, metadata
from .outcome import outcome_of, permitted
from .protocol import DATATYPES, InferRequest, Tensor, raw_bytes, raw_tensor, signature
from .rest import EXTENSIONS
from .settings import ServeSettings
from .traces import span

_STATUS = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.INVALID_ARGUMENT,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
#: Where a message keeps the numbers of a datatype that did not come as raw bytes.
_CONTENTS = {
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


class GrpcService:
    """The six methods of ``inference.GRPCInferenceService``."""

    def __init__(self, models: Models, health: Health, metrics: Metrics, settings: ServeSettings) -> None:
        self._models, self._health, self._metrics, self._settings = models, health, metrics, settings

    def handler(self) -> grpc.GenericRpcHandler:
        """All of them, for a server of grpc.aio."""
        methods = {
            "ServerLive": self._live,
            "ServerReady": self._ready,
            "ModelReady": self._model_ready,
            "ServerMetadata": self._server,
            "ModelMetadata": self._model,
            "ModelInfer": self._infer,
        }
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                name: grpc.unary_unary_rpc_method_handler(
                    method,
                    request_deserializer=MESSAGES[METHODS[name][0]].FromString,
                    response_serializer=MESSAGES[METHODS[name][1]].SerializeToString,
                )
                for name, method in methods.items()
            },
        )

    async def _live(self, request: Any, context: Any) -> Any:
        return MESSAGES["ServerLiveResponse"](live=True)

    async def _ready(self, request: Any, context: Any) -> Any:
        return MESSAGES["ServerReadyResponse"](ready=self._health.all_ready())

    async def _model_ready(self, request: Any, context: Any) -> Any:
        try:
            with self._models.get(request.name, request.version) as model:
                return MESSAGES["ModelReadyResponse"](ready=self._health.ready(model))
        except UnknownModelError as error:
            return await context.abort(grpc.StatusCode.NOT_FOUND, str(error))

    async def _server(self, request: Any, context: Any) -> Any:
        from .. import __version__

        return MESSAGES["ServerMetadataResponse"](name="edgepure", version=__version__, extensions=EXTENSIONS)

    async def _model(self, request: Any, context: Any) -> Any:
        await self._permit(context)
        try:
            with self._models.get(request.name, request.version) as model:
                versions = self._models.versions(request.name)
                found = metadata(model, versions, self._settings.max_images)
        except UnknownModelError as error:
            return await context.abort(grpc.StatusCode.NOT_FOUND, str(error))
        del found["parameters"]
        return MESSAGES["ModelMetadataResponse"](**found)

    async def _infer(self, request: Any, context: Any) -> Any:
        await self._permit(context)
        began, name, version = time.monotonic(), request.model_name, request.model_version
        try:
            with self._models.get(name, version) as model:
                model.service.check_room()  # before anything is read
                asked = _read(request, self._settings.max_images)
                left = seconds_left(asked.parameters, None, self._settings)
                remaining = context.time_remaining()
                if remaining is not None:
                    left = min(left, max(remaining, 0.001))
                with span("edgepure.infer", lambda: _headers(context), model=name):
                    outputs, results = await answer(model, asked, self._settings, left)
                self._metrics.answered(model, "grpc", results, time.monotonic() - began)
                return _write(name, model.settings.version, asked, outputs)
        except asyncio.CancelledError:
            self._metrics.ended(name, version, "grpc", "cancelled")
            raise
        except EdgepureError as error:
            status, outcome = outcome_of(error)
            self._metrics.ended(name, version, "grpc", outcome)
            if status == 500:
                self._health.doubt()
                log("failed", code=error.code, error=str(error))
            words = "the purification failed" if status == 500 else str(error)
            return await context.abort(_STATUS.get(status, grpc.StatusCode.INTERNAL), f"{words} [{error.code}]")
        except Exception as error:
            self._metrics.ended(name, version, "grpc", "failed")
            self._health.doubt()
            log("failed", error=f"{type(error).__name__}: {error}")
            return await context.abort(grpc.StatusCode.INTERNAL, "the purification failed [E-failed]")

    async def _permit(self, context: Any) -> None:
        if self._settings.token is None:
            return
        given = dict(context.invocation_metadata() or ()).get("authorization", "")
        if not permitted(given if isinstance(given, str) else "", self._settings.token):
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "a valid token is needed [E-token]")


def _headers(context: Any) -> dict[str, str]:
    return {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}


def _read(request: Any, max_images: int) -> InferRequest:
    """The tensors of a message.

    Raises:
        RequestError: they are not what the protocol says, or more than may come.
    """
    raw, inputs = list(request.raw_input_contents), {}
    if raw and len(raw) != len(request.inputs):
        raise RequestError(
            f"{len(request.inputs)} inputs, but {len(raw)} raw contents: all of them, or none", code="E-request-raw"
        )
    for place, entry in enumerate(request.inputs):
        shape = tuple(entry.shape)
        if not 1 <= len(shape) <= 8 or min(shape) < 1 or (len(shape) != 3 and shape[0] > max_images):
            raise RequestError(
                f"the shape {list(shape)[:8]} of {entry.name[:40]!r}: at most {max_images} images may come",
                code="E-request-images",
            )
        if raw:
            inputs[entry.name] = raw_tensor(entry.name, entry.datatype, shape, raw[place])
            continue
        if entry.datatype not in _CONTENTS:
            raise RequestError(
                f"the datatype {entry.datatype[:20]!r} comes as raw contents, or not at all; send it so, or send FP32",
                code="E-request-datatype",
            )
        values = getattr(entry.contents, _CONTENTS[entry.datatype])
        if len(values) != math.prod(shape):
            raise RequestError(
                f"{entry.name[:40]!r} of the shape {list(shape)} has {len(values)} values", code="E-request-elements"
            )
        if entry.datatype == "BYTES":
            inputs[entry.name] = list(values)
        elif entry.datatype == "UINT8" and max(values) > 255:
            raise RequestError(f"{entry.name[:40]!r} has values above 255", code="E-request-values")
        else:
            inputs[entry.name] = np.array(values, DATATYPES[entry.datatype]).reshape(shape)
    outputs = {entry.name: True for entry in request.outputs}
    return InferRequest(inputs, outputs, request.id, _parameters(request.parameters), True)


def _parameters(found: Mapping[str, Any]) -> dict[str, Any]:
    return {key: getattr(value, value.WhichOneof("parameter_choice") or "int64_param") for key, value in found.items()}


def _write(name: str, version: str, request: InferRequest, outputs: Mapping[str, Tensor]) -> Any:
    response = MESSAGES["ModelInferResponse"](model_name=name, model_version=version, id=request.id)
    for output, tensor in outputs.items():
        datatype, shape = signature(tensor)
        response.outputs.add(name=output, datatype=datatype, shape=shape)
        response.raw_output_contents.append(raw_bytes(tensor))
    return response
