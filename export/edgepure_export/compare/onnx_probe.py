"""Look inside an ONNX graph: the outputs of its nodes, by running it with some of them made graph outputs at a time."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from edgepure.bundle.external_data import external_tensors
from edgepure.engines.open import open_graph
from edgepure.engines.tensorrt.module import TENSORRT

from .tensorrt_outputs import tensorrt_outputs

#: Nodes whose outputs one session gives: each output costs memory, and keeps the engine from fusing across it.
PER_SESSION = 64
_FLOATS = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE}


@dataclass(frozen=True)
class NodeInfo:
    """A node with a float output.

    Attributes:
        name: ``<module path>/<operator>_<number>`` in graphs that edgepure exported; its output's name if it has none.
        operator: its type.
        inputs: names of the tensors that it reads.
        output: name of its first output.
    """

    name: str
    operator: str
    inputs: tuple[str, ...]
    output: str

    @property
    def module(self) -> str:
        """Path of the PyTorch module that it came from; the graph's name for what belongs to none."""
        return self.name.rpartition("/")[0] or self.name


class OnnxProbe:
    """A graph file that can be asked for the outputs of its nodes.

    Args:
        path: of the graph; its external data lies beside it.
        provider, threads, precision: as `open_graph`; ``tensorrt`` and ``tensorrt-rtx`` go through Polygraphy.
    """

    def __init__(self, path: Path, provider: str = "cpu", threads: int | None = None, precision: str = "fp32") -> None:
        self._path, self._provider, self._threads, self._precision = path, provider, threads, precision
        self._model = onnx.load(str(path), load_external_data=False)
        inferred = onnx.shape_inference.infer_shapes(self._model).graph
        typed = (*inferred.value_info, *inferred.output)
        floats = {value.name for value in typed if value.type.tensor_type.elem_type in _FLOATS}
        self.nodes = tuple(
            NodeInfo(node.name or node.output[0], node.op_type, tuple(node.input), node.output[0])
            for node in self._model.graph.node
            if node.output and node.output[0] in floats
        )

    def outputs(
        self, tensors: Sequence[str], feeds: Mapping[str, NDArray[np.float32]]
    ) -> dict[str, NDArray[np.generic]]:
        """The values of these tensors, in one session.

        Raises:
            ProviderError, BundleError: as `open_graph`.
        """
        if self._provider in TENSORRT:
            return tensorrt_outputs(self._path, tensors, feeds, self._provider)
        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        present = {value.name for value in model.graph.output}
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors if name not in present)
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / self._path.name
            target.write_bytes(model.SerializeToString())
            self._link_data(Path(folder))
            with open_graph(target, self._provider, precision=self._precision, threads=self._threads) as engine:
                values = engine.run(feeds)
        return {name: values[name] for name in tensors}

    def batches(self, nodes: Sequence[NodeInfo]) -> Iterator[Sequence[NodeInfo]]:
        """The nodes in groups for one session each."""
        for start in range(0, len(nodes), PER_SESSION):
            yield nodes[start : start + PER_SESSION]

    def _link_data(self, folder: Path) -> None:
        for name in {tensor.location for tensor in external_tensors(self._path, self._path.name)}:
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(self._path.parent / name, target)
            except OSError:  # another file system
                shutil.copyfile(self._path.parent / name, target)
