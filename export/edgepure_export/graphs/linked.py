"""Weights in files that have more than one link.

onnx and onnx_ir refuse such files, as somebody could have linked another's secrets into a folder. But edgepure makes
links itself (a change of a bundle links what stays the same), and so do installers and backups. What a bundle's weights
are is known by their hashes; so they are read here, from inside the folder only.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from edgepure.files.folders import real_path


def embedded(tensor: onnx.TensorProto, folder: Path) -> onnx.TensorProto:
    """The tensor with its bytes inside, where they lie in a file below ``folder``; another one as it is.

    Raises:
        ValueError, OSError: the file leads out of the folder, is not there, or too short.
    """
    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        return tensor
    place = {entry.key: entry.value for entry in tensor.external_data}
    file = real_path(folder / place.get("location", ""))
    if not file.is_relative_to(real_path(folder)):
        raise ValueError(f"{place.get('location')!r} leads out of {folder}")
    found = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    length = int(place["length"]) if "length" in place else None
    with open(file, "rb") as stream:
        stream.seek(int(place.get("offset", 0)))
        found.raw_data = stream.read() if length is None else stream.read(length)
    if length is not None and len(found.raw_data) != length:
        raise ValueError(f"{file.name} ends inside the tensor")
    return found


def unlink_weights(model: ir.Model) -> None:
    """Let the weights of a model that lie in files with more links than one be read by `embedded`, when they are."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if isinstance(tensor, ir.ExternalTensor) and os.stat(tensor.path).st_nlink > 1:
                shape = ir.Shape(tensor.shape.numpy())
                value.const_value = ir.LazyTensor(partial(_read, tensor), tensor.dtype, shape, name=tensor.name)


def _read(tensor: ir.ExternalTensor) -> ir.TensorProtocol:
    proto = onnx.TensorProto(name=tensor.name or "", data_type=int(tensor.dtype), dims=tensor.shape.numpy())
    proto.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", tensor.location), ("offset", tensor.offset), ("length", tensor.length)):
        if value is not None:
            proto.external_data.add(key=key, value=os.fspath(value) if isinstance(value, os.PathLike) else str(value))
    found: Any = ir.from_proto(embedded(proto, Path(tensor.base_dir)))
    return found  # type: ignore[no-any-return]
