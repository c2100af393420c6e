"""The Open Inference Protocol's bodies: what real clients write is read, and nothing else."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import numpy as np
import pytest
from codes import raises_code
from hypothesis import given
from hypothesis import strategies as st

from edgepure.errors import RequestError
from edgepure.serve.answer import seconds_left
from edgepure.serve.protocol import (
    InferRequest,
    parse_request,
    raw_bytes,
    raw_tensor,
    signature,
    write_response,
)
from edgepure.serve.settings import ServeSettings

httpclient = pytest.importorskip("tritonclient.http")


def body_of(*inputs: Any, outputs: Any = None) -> tuple[bytes, str | None]:
    """What tritonclient sends."""
    data, size = httpclient.InferenceServerClient.generate_request_body(list(inputs), outputs=outputs)
    return bytes(data), None if size is None else str(size)


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64, np.uint8, np.int64, np.bool_])
def test_a_real_clients_tensor_arrives(dtype: Any, binary: bool) -> None:
    if dtype == np.float16 and not binary:
        pytest.skip("the client has no FP16 in JSON")
    values = (np.arange(24).reshape(2, 3, 2, 2) % 7).astype(dtype)
    name = {"f": f"FP{8 * values.itemsize}", "u": "UINT8", "i": "INT64", "b": "BOOL"}[values.dtype.kind]
    tensor = httpclient.InferInput("image", list(values.shape), name)
    tensor.set_data_from_numpy(values, binary_data=binary)
    body, length = body_of(tensor)
    found = parse_request(body, length, max_images=4).inputs["image"]
    assert isinstance(found, np.ndarray) and found.dtype == values.dtype
    np.testing.assert_array_equal(found, values)


def test_image_files_arrive_as_bytes_raw_and_in_json() -> None:
    files = [b"\x89PNG\x00\xff", b""]
    tensor = httpclient.InferInput("image", [2], "BYTES")
    tensor.set_data_from_numpy(np.array(files, object))
    body, length = body_of(tensor)
    assert parse_request(body, length, max_images=4).inputs == {"image": files}
    text = {
        "inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": [base64.b64encode(b"\xff").decode()]}]
    }
    assert parse_request(json.dumps(text).encode(), None, max_images=4).inputs == {"image": [b"\xff"]}


def test_a_real_client_reads_our_answer() -> None:
    tensor = httpclient.InferInput("image", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([b"x"], object))
    asked = [httpclient.InferRequestedOutput("label"), httpclient.InferRequestedOutput("class_name", binary_data=False)]
    body, length = body_of(tensor, outputs=asked)
    request = parse_request(body, length, max_images=4)
    assert request.outputs == {"label": True, "class_name": False}
    answer, size = write_response("m", "1", request, {"label": np.array([3], np.int64), "class_name": [b"three"]})
    found = httpclient.InferenceServerClient.parse_response_body(answer, header_length=size)
    np.testing.assert_array_equal(found.as_numpy("label"), [3])
    assert found.as_numpy("class_name").tolist() == ["three"]


ENTRY = {"name": "image", "shape": [1, 2], "datatype": "FP32", "data": [0.0, 1.0]}


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [2, 2]},
        {"shape": [1, -2]},
        {"shape": [True, 2]},
        {"shape": "12"},
        {"shape": [99, 1]},
        {"datatype": "STRING"},
        {"datatype": None},
        {"data": ["a", "b"]},
        {"data": [[0.0], [1.0, 2.0]]},
        {"data": {}},
        {"datatype": "UINT8", "data": [0, 256]},
        {"datatype": "UINT8", "data": [0.5, 1]},
        {"datatype": "BYTES", "shape": [1], "data": ["not base64!"]},
        {"datatype": "BYTES", "shape": [1], "data": [7]},
        {"parameters": {"binary_data_size": 10**9}},
        {"parameters": {"binary_data_size": True}},
        {"parameters": {"binary_data_size": "8"}},
        {"name": 7},
        {"data": [10**400, 0.5]},
        {"data": ["a" * (1 << 20), *["b"] * (1 << 16)], "shape": [1, (1 << 16) + 1]},  # 256 GiB as an array of text
    ],
)
def test_what_is_not_of_the_protocol_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(RequestError):
        parse_request(json.dumps({"inputs": [{**ENTRY, **change}]}).encode(), None, max_images=4)


@pytest.mark.parametrize("length", ["-1", "9999", "1e3", "٣", "", "9" * 5000])
def test_a_lying_header_is_refused(length: str) -> None:
    with raises_code("E-request-header"):
        parse_request(json.dumps({"inputs": [ENTRY]}).encode(), length, max_images=4)


def test_halves_of_characters_come_into_no_answer() -> None:
    body = json.dumps({"id": "\ud800", "inputs": [ENTRY]}).encode()
    with raises_code("E-request-id"):
        parse_request(body, None, max_images=4)


@pytest.mark.parametrize("timeout", [10**400, -1, 0, "x", [], float("nan")])
def test_a_timeout_that_is_no_positive_number(timeout: Any) -> None:
    with raises_code("E-request-number"):
        seconds_left({"timeout": timeout}, None, ServeSettings())


@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode), st.none() | st.text("0123456789", max_size=4))
def test_no_body_does_more_than_be_refused(body: bytes, length: str | None) -> None:
    try:
        parse_request(body, length, max_images=4)
    except RequestError:
        return


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["name", "shape", "datatype", "data", "parameters"]), json_values), json_values)
def test_no_document_does_more_than_be_refused(change: dict[str, Any], more: Any) -> None:
    document = {"inputs": [{**ENTRY, **change}], "outputs": more, "parameters": more}
    try:
        parse_request(json.dumps(document).encode(), None, max_images=4)
    except RequestError:
        return


@given(st.lists(st.binary(max_size=5), min_size=1, max_size=4))
def test_bytes_come_back_as_they_went(elements: list[bytes]) -> None:
    assert raw_tensor("x", "BYTES", [len(elements)], raw_bytes(elements)) == elements
    assert signature(elements) == ("BYTES", [len(elements)])


def test_a_cut_bytes_tensor_is_refused() -> None:
    for data in (b"\x01", struct.pack("<I", 9) + b"short", raw_bytes([b"a", b"b"])):
        with pytest.raises(RequestError):
            raw_tensor("x", "BYTES", [1], data)


def test_only_finite_numbers_go_out_as_json() -> None:
    request = InferRequest({})
    with pytest.raises(ValueError, match="JSON"):
        write_response("m", "1", request, {"p": np.array([np.nan])})
