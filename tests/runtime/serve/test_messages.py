"""The gRPC messages are those of the protocol: number for number as a real client has them."""

from __future__ import annotations

from typing import Any

import pytest

from edgepure.serve.messages import MESSAGES, METHODS, SERVICE

theirs = pytest.importorskip("tritonclient.grpc.service_pb2")


def real(name: str) -> Any:
    found = theirs
    for part in name.split("."):
        found = getattr(found, part)
    return found


@pytest.mark.parametrize("name", MESSAGES)
def test_every_field_is_the_clients(name: str) -> None:
    for field in MESSAGES[name].DESCRIPTOR.fields:
        other = real(name).DESCRIPTOR.fields_by_name[field.name]
        assert (other.number, other.type, other.label) == (field.number, field.type, field.label)


def test_every_method_is_the_clients() -> None:
    service = theirs.DESCRIPTOR.services_by_name[SERVICE.rpartition(".")[2]]
    for name, (asked, answered) in METHODS.items():
        method = service.methods_by_name[name]
        assert (method.input_type.name, method.output_type.name) == (asked, answered)


def test_a_request_reads_the_same_on_both_sides() -> None:
    mine = MESSAGES["ModelInferRequest"](model_name="digits", id="7")
    mine.inputs.add(name="image", datatype="FP32", shape=[1, 2])
    mine.raw_input_contents.append(b"12345678")
    mine.parameters["timeout"].int64_param = 5
    other = real("ModelInferRequest").FromString(mine.SerializeToString())
    assert other.parameters["timeout"].int64_param == 5 and list(other.inputs[0].shape) == [1, 2]
    assert MESSAGES["ModelInferRequest"].FromString(other.SerializeToString()) == mine
