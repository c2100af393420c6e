"""One file of weights for all graphs of a bundle: equal tensors are stored once, whichever graph they come from.

The `step`, `step_learned` and `unet` graphs share the UNet, `mask` and `classifier` share the classifier. The file is
ordinary ONNX external data, so every ONNX reader finds its tensors. Tensors are written one at a time; a model above
2 GB never exists as one protobuf.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import TracebackType

import onnx_ir as ir

from edgepure.errors import ExportError

#: Smaller tensors stay inside the graph file, where shape inference can read them.
MIN_BYTES = 1024
#: Alignment of small and of large tensors in the file; large ones start on a memory page.
ALIGNMENT, PAGE, LARGE_BYTES = 64, 4096, 1 << 20


class WeightsPool:
    """Writes the shared weights file. Use as a context manager; graphs are valid once it is closed."""

    def __init__(self, directory: Path, file_name: str = "weights.bin") -> None:
        self.directory = directory
        self.file_name = file_name
        self.tensors = 0
        self._offsets: dict[bytes, int] = {}
        self._file = open(directory / file_name, "xb")  # noqa: SIM115 - closed in close()
        self._end = 0

    def add(self, content: bytes | memoryview) -> int:
        """Store the bytes unless they are there already; returns their offset in the file."""
        digest = hashlib.sha256(content).digest()
        offset = self._offsets.get(digest)
        if offset is None:
            alignment = PAGE if len(content) >= LARGE_BYTES else ALIGNMENT
            offset = -(-self._end // alignment) * alignment
            self._file.write(b"\0" * (offset - self._end))
            self._file.write(content)
            self._end = offset + len(content)
            self._offsets[digest] = offset
            self.tensors += 1
        return offset

    def save(self, model: ir.Model, file_name: str) -> Path:
        """Move the model's tensors into the pool and write the rest as ``file_name`` beside it."""
        for graph in model.graphs():
            for value in graph.initializers.values():
                tensor = value.const_value
                if tensor is None:
                    raise ExportError(f"{file_name}: the weight {value.name!r} has no value", code="E-graph-weight")
                if tensor.nbytes < MIN_BYTES or self._holds(tensor):
                    continue
                value.const_value = ir.ExternalTensor(
                    self.file_name,
                    self.add(tensor.tobytes()),
                    tensor.nbytes,
                    tensor.dtype,
                    shape=ir.Shape(tensor.shape.numpy()),
                    name=str(value.name),
                    base_dir=self.directory,
                )
        self._file.flush()
        path = self.directory / file_name
        ir.save(model, path)
        return path

    def _holds(self, tensor: ir.TensorProtocol) -> bool:
        """Whether the tensor is in this pool already; those of another file are taken over."""
        if not isinstance(tensor, ir.ExternalTensor):
            return False
        return Path(tensor.path).resolve() == (self.directory / self.file_name).resolve()

    @property
    def size(self) -> int:
        """Bytes of the file so far."""
        return self._end

    def close(self) -> None:
        """Finish the file."""
        self._file.close()

    def __enter__(self) -> WeightsPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
