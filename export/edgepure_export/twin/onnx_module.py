"""An exported ONNX graph as a PyTorch module with gradients: what is attacked is the graph that is deployed.

The graph's nodes run one after another as PyTorch operators (`edgepure_export.twin.onnx_operators`), on any device, in
float32 or, after ``.double()``, in float64. What does not depend on the inputs is computed once, at loading.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from edgepure.errors import BundleError, ConfigError, words_of

from ..graphs.linked import embedded
from .onnx_operators import OPERATORS, Node, Precision
from .onnx_operators.table import COMPUTED, DTYPES, SETTINGS

#: Operator sets that the table was written for. Below, several operators have another form.
OPSETS = range(13, 23)

#: Weights in an external file by their place in it, so that graphs that share a file share the memory.
SharedWeights = dict[tuple[Any, ...], nn.Parameter]


class OnnxModule(nn.Module):
    """A graph with a fixed list of nodes; no control flow.

    Weights are parameters without gradients, so ``.to(device)`` moves them. Inputs must have the module's floating
    type.

    Args:
        model: the graph. Its external weights are read from ``folder``.
        folder: the graph's folder.
        name: how messages name the graph.
        shared: weights that other graphs have loaded from the same files; new ones are added.

    Raises:
        BundleError: operators or an operator set that the table does not have; all of them are named.
    """

    def __init__(
        self, model: onnx.ModelProto, folder: Path, name: str = "the graph", shared: SharedWeights | None = None
    ) -> None:
        super().__init__()
        self.name = name
        self.opset = _opset(model, name)
        _check_operators(model, name)
        graph = model.graph
        known: dict[str, Tensor] = {}
        for tensor in graph.initializer:
            known[tensor.name] = _weight(tensor, folder, {} if shared is None else shared)
        self.input_names = tuple(value.name for value in graph.input if value.name not in known)
        self.output_names = tuple(value.name for value in graph.output)
        self.precision = Precision()
        self._nodes = list(self._fold(graph, known))
        self._releases = _releases(self._nodes, self.output_names)

        data, settings = _uses(self._nodes)
        data |= set(self.output_names)
        #: Names in the graph, which may have dots, to names of parameters.
        self._weights: dict[str, str] = {}
        #: Settings, integers, booleans and FP8 zero points: they stay on the CPU, where shapes are worked out.
        self._settings: dict[str, Tensor] = {}
        for key, value in known.items():
            if key in data and value.dtype in COMPUTED:
                self._weights[key] = f"weight_{len(self._weights)}"
                self.register_parameter(self._weights[key], _parameter(value))
            elif key in data | settings:
                self._settings[key] = value
        #: Follows the module's floating type, and gives a module without weights its device.
        self.anchor = nn.Parameter(torch.zeros(()), requires_grad=False)

    @classmethod
    def load(cls, path: str | os.PathLike[str], shared: SharedWeights | None = None) -> OnnxModule:
        """Read ``path`` and the external data beside it.

        Raises:
            BundleError: the file is missing, is no ONNX graph, or cannot be executed.
        """
        file = Path(path)
        try:
            model = onnx.load(file, load_external_data=False)
        except FileNotFoundError:
            raise BundleError(f"there is no graph at {file}; check the path", code="E-graph-missing") from None
        except Exception as error:  # protobuf's own classes
            raise BundleError(
                f"{file} is not a valid ONNX graph ({words_of(error)}); export it again", code="E-twin-graph"
            ) from error
        return cls(model, file.parent, file.name, shared)

    def forward(self, *inputs: Tensor) -> Any:
        """Inputs in the graph's order (`input_names`) -> its output, or a tuple of them in order (`output_names`)."""
        if len(inputs) != len(self.input_names):
            names = ", ".join(self.input_names)
            raise ConfigError(
                f"{self.name} takes {len(self.input_names)} inputs ({names}), got {len(inputs)}", code="E-twin-input"
            )
        values: dict[str, Tensor] = {key: getattr(self, name) for key, name in self._weights.items()}
        values.update(self._settings)
        for name, value in zip(self.input_names, inputs, strict=True):
            if value.is_floating_point() and value.dtype != self.precision.floating:
                raise ConfigError(
                    f"{self.name}: input {name!r} is {value.dtype}, expected {self.precision.floating}; convert the "
                    "input, or the module with .double() or .float()",
                    code="E-twin-input",
                )
            values[name] = value
        for node, done in zip(self._nodes, self._releases, strict=True):
            values.update(_run(node, values))
            for name in done:
                del values[name]
        outputs = tuple(values[name] for name in self.output_names)
        return outputs if len(outputs) > 1 else outputs[0]

    def extra_repr(self) -> str:
        return f"{self.name}: {', '.join(self.input_names)} -> {', '.join(self.output_names)}"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> OnnxModule:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.precision.floating = self.anchor.dtype
        return self

    def _fold(self, graph: onnx.GraphProto, known: dict[str, Tensor]) -> Iterator[Node]:
        """The nodes that depend on the inputs; the values of the others go into ``known``."""
        for proto in _sorted(graph, self.name):
            attributes = {a.name: _attribute(a) for a in proto.attribute}
            if proto.op_type == "Constant":
                known[proto.output[0]] = torch.as_tensor(next(iter(attributes.values())))
                continue
            node = Node(
                proto.op_type,
                proto.name,
                tuple(proto.input),
                tuple(proto.output),
                attributes,
                self.opset,
                self.precision,
            )
            if all(not name or name in known for name in node.inputs):
                with torch.no_grad():
                    known.update(_run(node, known))
            else:
                yield node


def _sorted(graph: onnx.GraphProto, name: str) -> Iterator[onnx.NodeProto]:
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


def _run(node: Node, values: dict[str, Tensor]) -> dict[str, Tensor]:
    """The node's outputs by name."""
    result = OPERATORS[node.operator](node, *(values[name] if name else None for name in node.inputs))
    results = result if isinstance(result, tuple) else (result,)
    return {name: value for name, value in zip(node.outputs, results, strict=False) if name}


def _uses(nodes: list[Node]) -> tuple[set[str], set[str]]:
    """Names of the values that are used as data, and of those that are used as settings."""
    data: set[str] = set()
    settings: set[str] = set()
    for node in nodes:
        for position, name in enumerate(node.inputs):
            (settings if position in SETTINGS.get(node.operator, ()) else data).add(name)
    return data, settings


def _releases(nodes: list[Node], outputs: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Which intermediate values are not needed any more after each node."""
    made = {name for node in nodes for name in node.outputs if name}
    kept = set(outputs)
    releases: list[tuple[str, ...]] = []
    for node in reversed(nodes):
        names = {name for name in (*node.inputs, *node.outputs) if name in made} - kept
        kept |= names
        releases.append(tuple(names))
    return releases[::-1]


def _opset(model: onnx.ModelProto, name: str) -> int:
    version = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    if version not in OPSETS:
        raise BundleError(
            f"{name} has opset {version}; the PyTorch twin executes opset {OPSETS[0]} to {OPSETS[-1]}: export the "
            "bundle again with one of them",
            code="E-twin-operator",
        )
    return int(version)


def _check_operators(model: onnx.ModelProto, name: str) -> None:
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


def _weight(tensor: onnx.TensorProto, folder: Path, shared: SharedWeights) -> Tensor:
    place = {entry.key: entry.value for entry in tensor.external_data}
    if not place:
        return _tensor(tensor, folder)
    file = (folder / place.get("location", "")).resolve()
    key = (file, place.get("offset"), place.get("length"), tensor.data_type, *tensor.dims)
    if key in shared:
        return shared[key]
    try:
        value = _tensor(tensor, folder)
    except Exception as error:  # the reader raises classes of its own for missing and for unsafe files
        raise BundleError(
            f"the weight {tensor.name!r} in {file.name} cannot be read: {words_of(error)}", code="E-twin-weight"
        ) from error
    if value.dtype in COMPUTED:
        shared[key] = _parameter(value)
        return shared[key]
    return value


def _tensor(tensor: onnx.TensorProto, folder: Path) -> Tensor:
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


def _attribute(attribute: onnx.AttributeProto) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, onnx.TensorProto):
        return _tensor(value, Path())
    if isinstance(value, bytes):
        return value.decode()
    if attribute.type in (onnx.AttributeProto.FLOATS, onnx.AttributeProto.INTS):
        return list(value)
    return value


def _parameter(value: Tensor) -> nn.Parameter:
    return value if isinstance(value, nn.Parameter) else nn.Parameter(value.detach(), requires_grad=False)
