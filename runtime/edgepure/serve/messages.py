"""The gRPC messages of the Open Inference Protocol v2, built from a table of their fields.

Names, numbers and types are the protocol's (package ``inference``). They live in a descriptor pool of their own, so
that a program that has a client's generated messages loaded can load these too.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

SERVICE = "inference.GRPCInferenceService"
#: method -> (request, response)
METHODS = {
    name: (f"{name}Request", f"{name}Response")
    for name in ("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer")
}

#: message -> fields in the order of their numbers, "[]" repeated, "{}" a map from text to it, "?" one of a choice.
_FIELDS: dict[str, str] = {
    "ServerLiveRequest": "",
    "ServerLiveResponse": "live:bool",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "ready:bool",
    "ModelReadyRequest": "name:string version:string",
    "ModelReadyResponse": "ready:bool",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "name:string version:string extensions:[]string",
    "ModelMetadataRequest": "name:string version:string",
    "ModelMetadataResponse.TensorMetadata": "name:string datatype:string shape:[]int64",
    "ModelMetadataResponse": "name:string versions:[]string platform:string "
    "inputs:[]ModelMetadataResponse.TensorMetadata outputs:[]ModelMetadataResponse.TensorMetadata",
    "InferParameter": "bool_param:?bool int64_param:?int64 string_param:?string double_param:?double "
    "uint64_param:?uint64",
    "InferTensorContents": "bool_contents:[]bool int_contents:[]int32 int64_contents:[]int64 uint_contents:[]uint32 "
    "uint64_contents:[]uint64 fp32_contents:[]float fp64_contents:[]double bytes_contents:[]bytes",
    "ModelInferRequest.InferInputTensor": "name:string datatype:string shape:[]int64 parameters:{}InferParameter "
    "contents:InferTensorContents",
    "ModelInferRequest.InferRequestedOutputTensor": "name:string parameters:{}InferParameter",
    "ModelInferRequest": "model_name:string model_version:string id:string parameters:{}InferParameter "
    "inputs:[]ModelInferRequest.InferInputTensor outputs:[]ModelInferRequest.InferRequestedOutputTensor "
    "raw_input_contents:[]bytes",
    "ModelInferResponse.InferOutputTensor": "name:string datatype:string shape:[]int64 parameters:{}InferParameter "
    "contents:InferTensorContents",
    "ModelInferResponse": "model_name:string model_version:string id:string parameters:{}InferParameter "
    "outputs:[]ModelInferResponse.InferOutputTensor raw_output_contents:[]bytes",
}


def _build() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="edgepure/inference.proto", package="inference", syntax="proto3")
    kinds = descriptor_pb2.FieldDescriptorProto
    made: dict[str, Any] = {}
    for full in sorted(_FIELDS, key=lambda name: name.count(".")):  # outer messages before those inside them
        outer, _, inner = full.rpartition(".")
        made[full] = (made[outer].nested_type if outer else file.message_type).add(name=inner)
    for full, fields in _FIELDS.items():
        message = made[full]
        for number, text in enumerate(fields.split(), start=1):
            name, _, kind = text.partition(":")
            field = message.field.add(name=name, number=number, label=kinds.LABEL_OPTIONAL)
            if kind.startswith("[]"):
                field.label, kind = kinds.LABEL_REPEATED, kind[2:]
            elif kind.startswith("?"):
                if not message.oneof_decl:
                    message.oneof_decl.add(name="parameter_choice")
                field.oneof_index, kind = 0, kind[1:]
            elif kind.startswith("{}"):
                entry_name = "".join(part.capitalize() for part in name.split("_")) + "Entry"
                entry = message.nested_type.add(name=entry_name)
                entry.options.map_entry = True
                entry.field.add(name="key", number=1, label=kinds.LABEL_OPTIONAL, type=kinds.TYPE_STRING)
                entry.field.add(
                    name="value",
                    number=2,
                    label=kinds.LABEL_OPTIONAL,
                    type=kinds.TYPE_MESSAGE,
                    type_name=f".inference.{kind[2:]}",
                )
                field.label, kind = kinds.LABEL_REPEATED, f"{full}.{entry_name}"
            if kind[0].isupper():
                field.type, field.type_name = kinds.TYPE_MESSAGE, f".inference.{kind}"
            else:
                field.type = getattr(kinds, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)  # type: ignore[attr-defined,unused-ignore]
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"inference.{name}")) for name in _FIELDS}


#: Message classes by name.
MESSAGES: dict[str, Any] = _build()
