"""The REST interface as an OpenAPI 3.1 document."""

from __future__ import annotations

from typing import Any

from .outputs import output_names
from .protocol import DATATYPES
from .settings import ServeSettings

_TENSOR = {
    "type": "object",
    "required": ["name", "shape", "datatype"],
    "properties": {
        "name": {"type": "string"},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 1, "maxItems": 8},
        "datatype": {"enum": ["BYTES", *DATATYPES]},
        "parameters": {"type": "object"},
        "data": {"type": "array", "items": {}},
    },
}
_ERROR = {
    "type": "object",
    "required": ["error", "code"],
    "properties": {"error": {"type": "string"}, "code": {"type": "string", "pattern": "^E-"}},
}


def document(settings: ServeSettings) -> dict[str, Any]:
    """What can be asked of this server."""
    from .. import __version__

    paths: dict[str, Any] = {
        "/v2/health/live": {"get": _operation("live", "The process answers.")},
        "/v2/health/ready": {"get": _operation("ready", "Every model answered its self-test through the slots.", 503)},
        "/v2": {"get": _operation("server", "Name, version and extensions.")},
        "/metrics": {"get": _operation("metrics", "Prometheus text format.")},
        "/v2/repository/index": {"post": _operation("index", "All models and their states.", 401)},
        "/v2/repository/models/{name}/load": {
            "post": _operation("load", "Load a known model anew from its folder.", 401, 403, 404, named=True)
        },
        "/v2/repository/models/{name}/unload": {
            "post": _operation("unload", "Take no more requests for a model.", 401, 403, 404, named=True)
        },
    }
    for versioned in (False, True):
        base = "/v2/models/{name}" + ("/versions/{version}" if versioned else "")
        end = "Version" if versioned else ""
        about: dict[str, Any] = {"named": True, "versioned": versioned}
        infer = _operation(
            f"infer{end}",
            "Purify images, and answer: labels, boxes, label maps or vectors.",
            400,
            401,
            404,
            413,
            503,
            504,
            **about,
        )
        infer["requestBody"] = {
            "required": True,
            "content": {
                "application/json": {"schema": {"$ref": "#/components/schemas/InferRequest"}},
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            },
        }
        infer["responses"]["200"]["content"] = {
            "application/json": {"schema": {"$ref": "#/components/schemas/InferResponse"}}
        }
        paths[base] = {"get": _operation(f"model{end}", "Inputs and outputs.", 401, 404, **about)}
        paths[base + "/ready"] = {"get": _operation(f"modelReady{end}", "This model is ready.", 404, 503, **about)}
        paths[base + "/infer"] = {"post": infer}
    tensors = {"type": "array", "items": {"$ref": "#/components/schemas/Tensor"}}
    outputs = {
        "type": "array",
        "items": {"type": "object", "properties": {"name": {"enum": output_names(settings.show)}}},
    }
    result: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "edgepure",
            "version": __version__,
            "description": "Open Inference Protocol v2: images are purified, then answered.",
        },
        "paths": paths,
        "components": {
            "schemas": {
                "Tensor": _TENSOR,
                "Error": _ERROR,
                "InferRequest": {
                    "type": "object",
                    "required": ["inputs"],
                    "properties": {
                        "id": {"type": "string", "maxLength": 256},
                        "parameters": {
                            "type": "object",
                            "properties": {
                                "timeout": {"type": "number", "description": "microseconds"},
                                "priority": {"enum": [0, 1, 2], "description": "1: urgent"},
                            },
                        },
                        "inputs": tensors,
                        "outputs": outputs,
                    },
                },
                "InferResponse": {
                    "type": "object",
                    "required": ["model_name", "outputs"],
                    "properties": {
                        "id": {"type": "string"},
                        "model_name": {"type": "string"},
                        "model_version": {"type": "string"},
                        "outputs": tensors,
                    },
                },
            }
        },
    }
    if settings.token is not None or settings.admin_token is not None:
        result["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        result["security"] = [{"token": []}]
    return result


def _operation(name: str, words: str, *errors: int, named: bool = False, versioned: bool = False) -> dict[str, Any]:
    failure = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}}
    responses: dict[str, Any] = {"200": {"description": "Done."}}
    responses.update({str(status): {"description": "Refused: the error says why.", **failure} for status in errors})
    found: dict[str, Any] = {"operationId": name, "summary": words, "responses": responses}
    parts = [part for part, there in (("name", named), ("version", versioned)) if there]
    if parts:
        found["parameters"] = [
            {"name": part, "in": "path", "required": True, "schema": {"type": "string"}} for part in parts
        ]
    return found
