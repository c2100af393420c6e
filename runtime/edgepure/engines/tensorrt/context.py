"""Execution contexts of TensorRT with everything set once, and work on a stream that turns into a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ...errors import EdgepureError
from ..gpu.cuda import DeviceBuffer, Graph, Stream


class Context:
    """An execution context with its shapes, addresses and memory set once; every call is checked."""

    def __init__(self, context: Any, what: str, explained: Callable[[str], EdgepureError], stream: Stream) -> None:
        self._context, self._what, self._explained, self._stream = context, what, explained, stream

    def bind(self, profile: int, shapes: Mapping[str, tuple[int, ...]], addresses: Mapping[str, int]) -> None:
        """Select a profile, then set all shapes and all addresses: the profile resets the shapes."""
        self._check(self._context.set_optimization_profile_async(profile, int(self._stream)), f"profile {profile}")
        for name, shape in shapes.items():
            self._check(self._context.set_input_shape(name, shape), f"the shape {list(shape)} of {name!r}")
        unknown = self._context.infer_shapes()
        self._check(not unknown, f"the shapes of {', '.join(unknown)} are not known")
        for name, address in addresses.items():
            self._check(self._context.set_tensor_address(name, address), f"the address of {name!r}")
        self._stream.wait()  # the profile is in place before anything is captured

    def give_memory(self, memory: DeviceBuffer) -> None:
        """Let it compute in this memory."""
        self._context.set_device_memory(memory.pointer, memory.nbytes)

    def enqueue(self) -> None:
        """Put one call on the stream."""
        self._check(self._context.execute_async_v3(int(self._stream)), "the call was refused")

    def can_be_captured(self) -> bool:
        """False where TensorRT says that a CUDA graph is not possible. Only TensorRT for RTX can be asked."""
        ask = getattr(self._context, "is_stream_capturable", None)
        return ask is None or bool(ask(int(self._stream)))

    def close(self) -> None:
        self._context = None

    def _check(self, worked: bool, what: str) -> None:
        if not worked:
            raise self._explained(f"{self._what} ({what})")


class Captured:
    """Work on a stream that becomes a CUDA graph: plain at the first call, captured at the second, then launched.

    The first call is the warm run that TensorRT needs. If capturing fails, every call is plain and `why_not` says why.
    """

    def __init__(self, stream: Stream, work: Callable[[], None], possible: Callable[[], bool]) -> None:
        self._stream, self._work, self._possible = stream, work, possible
        self._warm = False
        self.graph: Graph | None = None
        self.why_not = ""

    def __call__(self) -> None:
        if self._warm and self.graph is None and not self.why_not:
            self._capture()
        if self.graph is not None:
            self.graph.launch()
        else:
            self._work()
        self._warm = True

    def _capture(self) -> None:
        if not self._possible():
            self.why_not = "TensorRT says that this engine cannot be captured"
            return
        try:
            self.graph = Graph(self._stream, self._work)
        except EdgepureError as error:
            self.why_not = str(error)

    def close(self) -> None:
        if self.graph is not None:
            self.graph.close()
            self.graph = None
