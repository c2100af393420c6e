"""An exported ONNX graph as a PyTorch module with gradients: what is attacked is the graph that is deployed.

The graph's nodes run one after another as PyTorch operators (`edgepure_export.twin.onnx_operators`), on any device, in
float32 or, after ``.double()``, in float64. What does not depend on the inputs is computed once, at loading.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from edgepure.errors import BundleError, ConfigError, words_of

from .onnx_graph import (
    OPSETS as OPSETS,
)
from .onnx_graph import (
    SharedWeights as SharedWeights,
)
from .onnx_graph import (
    as_parameter,
    check_operators,
    opset_of,
    read_attribute,
    read_weight,
    sorted_nodes,
)
from .onnx_operators import OPERATORS, Node, Precision
from .onnx_operators.table import COMPUTED, SETTINGS
from .onnx_sizes import BATCHES, NUMBERS, Bound, constant, of_sizes, worked_out


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
        self.opset = opset_of(model, name)
        check_operators(model, name)
        graph = model.graph
        known: dict[str, Tensor] = {}
        for tensor in graph.initializer:
            known[tensor.name] = read_weight(tensor, folder, {} if shared is None else shared)
        self.input_names = tuple(value.name for value in graph.input if value.name not in known)
        self.output_names = tuple(value.name for value in graph.output)
        self.precision = Precision()
        self._nodes = list(self._fold(graph, known))
        #: What nodes read as numbers, and need not look for in a tensor.
        self._bound: list[Bound] = [
            {
                place: constant(known[node.inputs[place]])
                for place in NUMBERS.get(node.operator, ())
                if place < len(node.inputs) and node.inputs[place] in known
            }
            for node in self._nodes
        ]
        self._releases = _releases(self._nodes, self.output_names)
        #: Names in the graph, which may have dots, to names of parameters.
        self._weights: dict[str, str] = {}
        #: Settings, integers, booleans and FP8 zero points: they stay on the CPU, where shapes are worked out.
        self._settings: dict[str, Tensor] = {}
        self._keep(known)
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
        values = self._values(*inputs)
        outputs = tuple(values[name] for name in self.output_names)
        return outputs if len(outputs) > 1 else outputs[0]

    def fixed(self, *shape: int) -> OnnxModule:
        """Work out what depends on the sizes of the images alone, which exporters write as arithmetic on shapes, so
        that the module can be exported again; itself.

        Args:
            shape: of one image, as the graph's only input has it: ``(C, H, W)``.
        """
        names = of_sizes(self._nodes, self._weights.keys() | self._settings.keys())
        if not names:
            return self
        releases, self._releases = self._releases, [()] * len(self._nodes)
        try:
            with torch.no_grad():
                runs = [self._values(torch.rand((batch, *shape))) for batch in BATCHES]
        finally:
            self._releases = releases
        found = worked_out(self._nodes, self.output_names, runs, names)
        self._bound = [self._bound[i] | found.bound.get(i, {}) for i in found.nodes]
        self._nodes = [self._nodes[i] for i in found.nodes]
        self._releases = _releases(self._nodes, self.output_names)
        self._keep(found.constants)
        return self

    def _values(self, *inputs: Tensor) -> dict[str, Tensor]:
        """Run the graph: the values that are not released, by name."""
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
        batch = inputs[0].shape[0] if inputs and inputs[0].ndim else 1
        for node, bound, done in zip(self._nodes, self._bound, self._releases, strict=True):
            values.update(_run(node, values, bound, batch))
            for name in done:
                del values[name]
        return values

    def extra_repr(self) -> str:
        return f"{self.name}: {', '.join(self.input_names)} -> {', '.join(self.output_names)}"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> OnnxModule:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.precision.floating = self.anchor.dtype
        return self

    def _keep(self, known: Mapping[str, Tensor]) -> None:
        """Keep of known values those that nodes use."""
        data, settings = _uses(self._nodes)
        data |= set(self.output_names)
        for key, value in known.items():
            if key in data and value.dtype in COMPUTED:
                self._weights[key] = f"weight_{len(self._weights)}"
                self.register_parameter(self._weights[key], as_parameter(value))
            elif key in data | settings:
                self._settings[key] = value

    def _fold(self, graph: onnx.GraphProto, known: dict[str, Tensor]) -> Iterator[Node]:
        """The nodes that depend on the inputs; the values of the others go into ``known``."""
        for proto in sorted_nodes(graph, self.name):
            attributes = {a.name: read_attribute(a) for a in proto.attribute}
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


def _run(node: Node, values: dict[str, Tensor], bound: Bound | None = None, batch: int = 1) -> dict[str, Tensor]:
    """The node's outputs by name."""
    held = bound or {}
    inputs = [
        held[place].of(batch) if place in held else values[name] if name else None
        for place, name in enumerate(node.inputs)
    ]
    result = OPERATORS[node.operator](node, *inputs)
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
