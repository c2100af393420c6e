"""The messages of the Open Inference Protocol v2 over REST: JSON, and JSON with raw tensors behind it.

Nothing here knows of sockets or of purification: bytes become named arrays, and named arrays become bytes. gRPC carries
the same tensors in messages of its own (`messages`), and shares `decode_bytes` and `raw_tensor`.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import RequestError

#: Datatypes of the protocol and what they are in NumPy; BYTES is a list of byte strings.
DATATYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
}
#: Says where the JSON of a body ends and its raw tensors begin.
LENGTH_HEADER = "Inference-Header-Content-Length"

Tensor = NDArray[Any] | list[bytes]


@dataclass(frozen=True)
class InferRequest:
    """What a client asks.

    Attributes:
        inputs: tensors by name; BYTES tensors are lists.
        outputs: names of the outputs that are wanted, and whether each goes as raw bytes; empty: all there are.
        id: given back as it came.
        parameters: of the request, such as ``timeout`` (microseconds) and ``priority``.
        binary: what is not named in ``outputs`` goes as raw bytes.
    """

    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, bool] = field(default_factory=dict)
    id: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    binary: bool = False


def parse_request(body: bytes, header_length: str | None, *, max_images: int) -> InferRequest:
    """Read the body of an infer request.

    Args:
        body: all of it.
        header_length: the value of `LENGTH_HEADER`; None: the body is JSON alone.
        max_images: tensors with a larger first dimension are refused before their data is looked at.

    Raises:
        RequestError: the body is not what the protocol says, or a tensor is larger than it may be.
    """
    split = len(body)
    if header_length is not None:
        number = header_length.isascii() and header_length.isdigit() and len(header_length) < 20
        if not number or int(header_length) > len(body):
            raise _fault(
                f"the header {LENGTH_HEADER} is {header_length[:20]!r}, but the body has {len(body)} bytes",
                code="E-request-header",
            )
        split = int(header_length)
    try:
        document = json.loads(body[:split])
    except (ValueError, RecursionError):
        raise _fault(
            "the request is not valid JSON; the tensors themselves may follow it as raw bytes", code="E-request-json"
        ) from None
    if not isinstance(document, dict):
        raise _fault("the request is not a JSON object", code="E-request-json")
    parameters = _mapping(document.get("parameters"), "parameters")
    raw, inputs = memoryview(body)[split:], {}
    for entry in _objects(document.get("inputs"), "inputs"):
        name = entry.get("name")
        if not isinstance(name, str) or name in inputs:
            raise _fault("every input needs a name of its own", code="E-request-names")
        datatype, shape = entry.get("datatype"), _shape(name, entry.get("shape"), max_images)
        size = _mapping(entry.get("parameters"), f"parameters of {name}").get("binary_data_size")
        if size is None:
            inputs[name] = _from_json(name, datatype, shape, entry.get("data"))
            continue
        if type(size) is not int or not 0 <= size <= len(raw):
            raise _fault(
                f"binary_data_size of {name} is {size!r}, but {len(raw)} raw bytes are left",
                code="E-request-binary-size",
            )
        inputs[name] = raw_tensor(name, datatype, shape, bytes(raw[:size]))
        raw = raw[size:]
    if len(raw):
        raise _fault(
            f"{len(raw)} raw bytes belong to no input; say binary_data_size of each input", code="E-request-rest"
        )
    binary = parameters.get("binary_data_output") is True
    outputs = {}
    for entry in _objects(document.get("outputs", []), "outputs"):
        if not isinstance(entry.get("name"), str):
            raise _fault("every output that is asked for needs a name", code="E-request-names")
        asked = _mapping(entry.get("parameters"), "parameters of an output")
        outputs[entry["name"]] = bool(asked.get("binary_data", binary))
    identity = document.get("id", "")
    if not isinstance(identity, str) or len(identity) > 256 or _halves(identity):
        raise _fault("the id must be a text of at most 256 characters", code="E-request-id")
    return InferRequest(inputs, outputs, identity, parameters, binary)


def raw_tensor(name: str, datatype: object, shape: Sequence[int], data: bytes) -> Tensor:
    """A tensor from its little-endian bytes; BYTES elements carry their length in four bytes each.

    Raises:
        RequestError: the datatype is unknown, or the bytes do not fit the shape.
    """
    if datatype == "BYTES":
        return decode_bytes(name, shape, data)
    dtype = _dtype(name, datatype)
    wanted = math.prod(shape) * dtype.itemsize
    if len(data) != wanted:
        raise _fault(f"{name} of the shape {list(shape)} needs {wanted} bytes, got {len(data)}", code="E-request-bytes")
    if dtype == np.bool_:
        array: NDArray[Any] = np.frombuffer(data, np.uint8) != 0
    else:
        array = np.frombuffer(data, dtype.newbyteorder("<")).astype(dtype, copy=False)
    return array.reshape(shape)


def decode_bytes(name: str, shape: Sequence[int], data: bytes) -> list[bytes]:
    """The elements of a BYTES tensor."""
    found, place = [], 0
    while place < len(data):
        if place + 4 > len(data):
            raise _fault(f"{name} ends inside the length of an element", code="E-request-element")
        (size,) = struct.unpack_from("<I", data, place)
        if place + 4 + size > len(data):
            raise _fault(f"{name} ends inside an element of {size} bytes", code="E-request-element")
        found.append(data[place + 4 : place + 4 + size])
        place += 4 + size
    return _counted(name, shape, found)


def write_response(
    model: str, version: str, request: InferRequest, outputs: Mapping[str, Tensor]
) -> tuple[bytes, int | None]:
    """The body of an answer, and where its JSON ends if raw tensors follow (None: there are none)."""
    entries, raw = [], []
    for name, tensor in outputs.items():
        datatype, shape = signature(tensor)
        entry: dict[str, Any] = {"name": name, "datatype": datatype, "shape": shape}
        if request.outputs.get(name, request.binary):
            raw.append(raw_bytes(tensor))
            entry["parameters"] = {"binary_data_size": len(raw[-1])}
        elif isinstance(tensor, list):
            entry["data"] = [element.decode("utf-8", "replace") for element in tensor]
        else:
            entry["data"] = tensor.reshape(-1).tolist()
        entries.append(entry)
    document: dict[str, Any] = {"model_name": model, "model_version": version, "outputs": entries}
    if request.id:
        document["id"] = request.id
    text = json.dumps(document, allow_nan=False, ensure_ascii=False).encode()
    return (text + b"".join(raw), len(text)) if raw else (text, None)


def raw_bytes(tensor: Tensor) -> bytes:
    """A tensor as the protocol's raw bytes."""
    if isinstance(tensor, list):
        return b"".join(struct.pack("<I", len(element)) + element for element in tensor)
    return np.ascontiguousarray(tensor, tensor.dtype.newbyteorder("<")).tobytes()


def signature(tensor: Tensor) -> tuple[str, list[int]]:
    """Datatype and shape in the protocol's words."""
    if isinstance(tensor, list):
        return "BYTES", [len(tensor)]
    return next(name for name, dtype in DATATYPES.items() if dtype == tensor.dtype), list(tensor.shape)


def _halves(text: str) -> bool:
    """Whether there are halves of characters in it, which JSON allows and UTF-8 does not."""
    return any("\ud800" <= character <= "\udfff" for character in text)


def _from_json(name: str, datatype: object, shape: Sequence[int], data: object) -> Tensor:
    if not isinstance(data, list):
        raise _fault(f"{name} has neither data nor binary_data_size", code="E-request-no-data")
    if datatype == "BYTES":
        try:
            return _counted(name, shape, [base64.b64decode(element, validate=True) for element in data])
        except (TypeError, ValueError, binascii.Error):
            raise _fault(
                f"{name}: bytes inside JSON are written in base64; raw tensors need no encoding",
                code="E-request-base64",
            ) from None
    dtype = _dtype(name, datatype)
    try:
        array = np.array(data, object)  # of another type, one long text would make all elements as long
    except (ValueError, RecursionError):
        array = np.empty(0, object)
    kinds = set(map(type, array.flat))
    if array.size != math.prod(shape) or not kinds <= {bool, int, float}:
        raise _fault(
            f"data of {name} must be numbers, {math.prod(shape)} of them for the shape {list(shape)}",
            code="E-request-data",
        )
    whole = dtype.kind not in "iu" or (
        kinds == {int} and array.min() >= np.iinfo(dtype).min and array.max() <= np.iinfo(dtype).max
    )
    try:
        with np.errstate(over="ignore"):
            found = array.astype(dtype).reshape(shape) if whole else None
    except OverflowError:
        found = None
    if found is None:
        raise _fault(f"data of {name} does not fit the datatype {datatype}", code="E-request-values")
    return found


def _counted(name: str, shape: Sequence[int], elements: list[bytes]) -> list[bytes]:
    if math.prod(shape) != len(elements):
        raise _fault(
            f"{name} of the shape {list(shape)} needs {math.prod(shape)} elements, got {len(elements)}",
            code="E-request-elements",
        )
    return elements


def _dtype(name: str, datatype: object) -> np.dtype[Any]:
    if not isinstance(datatype, str) or datatype not in DATATYPES:
        raise _fault(f"the datatype of {name} must be one of BYTES, {', '.join(DATATYPES)}", code="E-request-datatype")
    return DATATYPES[datatype]


def _shape(name: str, shape: object, max_images: int) -> tuple[int, ...]:
    if not isinstance(shape, list) or not 1 <= len(shape) <= 8 or not all(type(n) is int and n >= 1 for n in shape):
        raise _fault(f"the shape of {name} must be a list of 1 to 8 positive integers", code="E-request-shape")
    if len(shape) != 3 and shape[0] > max_images:  # three dimensions are one image
        raise _fault(
            f"{name} has {shape[0]} images, at most {max_images} may come in one request", code="E-request-images"
        )
    return tuple(shape)


def _mapping(value: object, what: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _fault(f"{what} must be a JSON object", code="E-request-object")
    return value


def _objects(value: object, what: str) -> list[dict[str, Any]]:
    if not isinstance(value, list) or len(value) > 16 or not all(isinstance(entry, dict) for entry in value):
        raise _fault(f"{what} must be a list of at most 16 objects", code="E-request-list")
    return value


def _fault(sentence: str, *, code: str) -> RequestError:
    return RequestError(sentence, code=code)
