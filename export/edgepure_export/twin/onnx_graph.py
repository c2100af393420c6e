"""An ONNX graph as it is read: its operators and its order checked, its weights and attributes as tensors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from edgepure.errors import BundleError, words_of
from edgepure.files.folders import real_path

from ..graphs.linked import embedded
from .onnx_operators import OPERATORS
from .onnx_operators.table import COMPUTED, DTYPES

#: Operator sets that the table was written for. Below, several operators have another form.
OPSETS = range(13, 23)

#: Weights in an external file by their place in it, so that graphs that share a file share the memory.
SharedWeights = dict[tuple[Any, ...], nn.Parameter]


def sorted_nodes(graph: onnx.GraphProto, name: str) -> Iterator[onnx.NodeProto]:
    """The nodes, each behind those whose outputs it takes. Converters append nodes, and engines accept that."""
    made = {"", *(value.name for value in graph.input), *(tensor.name for tensor in graph.initializer)}
    waiting = list(graph.node)
    while waiting:
        held = []
        for node in waiting:
            if made.issuperset(node.input):
                made.update(node.output)
                yield node
            else:
                held.append(node)
        if len(held) == len(waiting):
            missing = sorted({i for node in held for i in node.input} - made)
            raise BundleError(
                f"{name} is not a valid ONNX graph: nothing makes {missing[0]!r}; export it again",
                code="E-graph-dangling",
            )
        waiting = held


def opset_of(model: onnx.ModelProto, name: str) -> int:
    """Its operator set; BundleError if the table was not written for it."""
    version = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    if version not in OPSETS:
        raise BundleError(
            f"{name} has opset {version}; the PyTorch twin executes opset {OPSETS[0]} to {OPSETS[-1]}: export the "
            "bundle again with one of them",
            code="E-twin-operator",
        )
    return int(version)


def check_operators(model: onnx.ModelProto, name: str) -> None:
    """Raise BundleError unless the table has all operators of a graph."""
    missing = sorted(
        {
            f"{node.domain}.{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type
            for node in model.graph.node
            if node.domain not in ("", "ai.onnx") or (node.op_type not in OPERATORS and node.op_type != "Constant")
        }
    )
    if missing or model.functions or model.graph.sparse_initializer:
        what = f"the operators {', '.join(missing)}" if missing else "local functions or sparse weights"
        raise BundleError(
            f"{name} uses {what}, which the PyTorch twin cannot differentiate; attack the source model in its place",
            code="E-twin-operator",
        )


def read_weight(tensor: onnx.TensorProto, folder: Path, shared: SharedWeights) -> Tensor:
    """The value of an initializer; floating ones of external files are read once."""
    place = {entry.key: entry.value for entry in tensor.external_data}
    if not place:
        return read_tensor(tensor, folder)
    file = real_path(folder / place.get("location", ""))
    key = (file, place.get("offset"), place.get("length"), tensor.data_type, *tensor.dims)
    if key in shared:
        return shared[key]
    try:
        value = read_tensor(tensor, folder)
    except Exception as error:  # the reader raises classes of its own for missing and for unsafe files
        raise BundleError(
            f"the weight {tensor.name!r} in {file.name} cannot be read: {words_of(error)}", code="E-twin-weight"
        ) from error
    if value.dtype in COMPUTED:
        shared[key] = as_parameter(value)
        return shared[key]
    return value


def read_tensor(tensor: onnx.TensorProto, folder: Path) -> Tensor:
    """A tensor of the file as PyTorch has it."""
    array: NDArray[Any] = numpy_helper.to_array(embedded(tensor, folder))
    if tensor.data_type not in DTYPES:
        kind = onnx.TensorProto.DataType.Name(tensor.data_type)
        raise BundleError(
            f"the weight {tensor.name!r} is {kind}, which the PyTorch twin does not know", code="E-twin-weight-type"
        )
    dtype = DTYPES[tensor.data_type]
    if dtype in (torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2):  # NumPy has no such type: by their bits
        bits = np.array(array).view(np.int16 if dtype == torch.bfloat16 else np.uint8)
        return torch.from_numpy(bits).view(dtype)
    return torch.from_numpy(np.array(array, order="C"))


def read_attribute(attribute: onnx.AttributeProto) -> Any:
    """The value of an attribute."""
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, onnx.TensorProto):
        return read_tensor(value, Path())
    if isinstance(value, bytes):
        return value.decode()
    if attribute.type in (onnx.AttributeProto.FLOATS, onnx.AttributeProto.INTS):
        return list(value)
    return value


def as_parameter(value: Tensor) -> nn.Parameter:
    """A parameter without a gradient."""
    return value if isinstance(value, nn.Parameter) else nn.Parameter(value.detach(), requires_grad=False)
