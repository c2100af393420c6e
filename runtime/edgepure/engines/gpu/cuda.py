"""CUDA through cuda-bindings: memory, streams, copies and graphs, every call checked.

Addresses are plain integers. Objects of this module free what they own in `close`, which may be called twice.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from functools import cache
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ...errors import EdgepureError, ProviderError, words_of
from ...machine import jetson, nvidia
from ...machine.install import CUDA_BINDINGS
from ..kinds import DEFAULT_PROVIDER


@cache
def bindings() -> Any:
    """The modules ``runtime``, ``driver`` and ``nvrtc`` of cuda-bindings as attributes of one object.

    Raises:
        ProviderError: they are not installed; with the line that installs them.
    """
    try:
        names = ("runtime", "driver", "nvrtc")
        return SimpleNamespace(**{name: import_module(f"cuda.bindings.{name}") for name in names})
    except ImportError as error:
        line = CUDA_BINDINGS.on(jetson.find(), driver()) or 'pip install "cuda-bindings"'
        raise ProviderError(
            f"cuda-bindings cannot be imported ({words_of(error)}); install it with `{line}`", code="E-package-cuda"
        ) from None


@cache
def driver() -> nvidia.Driver:
    """The driver with its GPUs, asked once: that may start a program (nvidia-smi)."""
    return nvidia.find()


def call(function: str, *arguments: Any) -> Any:
    """One call of the CUDA runtime; gives its result, its results as a tuple, or None.

    Raises:
        EdgepureError: the GPU's memory is full.
        ProviderError: any other error, in CUDA's words.
    """
    runtime = bindings().runtime
    error, *results = getattr(runtime, function)(*arguments)
    if error != runtime.cudaError_t.cudaSuccess:
        raise _explained(runtime, function, error)
    if len(results) == 1:
        return results[0]
    return tuple(results) if results else None


def _explained(runtime: Any, function: str, error: Any) -> EdgepureError:
    runtime.cudaGetLastError()  # CUDA repeats an error that can be survived until somebody has asked for it
    if error == runtime.cudaError_t.cudaErrorMemoryAllocation:
        asked, free, total = runtime.cudaMemGetInfo()
        known = f" ({free >> 20} of {total >> 20} MiB are free)" if asked == runtime.cudaError_t.cudaSuccess else ""
        return EdgepureError(
            f"the GPU's memory is full{known}; use fewer slots or smaller batches, or end what else runs on the GPU",
            code="E-gpu-memory",
        )
    words = runtime.cudaGetErrorString(error)[1]
    text = words.decode(errors="replace") if isinstance(words, bytes) else str(words)
    return ProviderError(
        f"CUDA: {function} failed: {text} ({error.name}); `edgepure doctor` shows what works here", code="E-gpu"
    )


def require_gpu(engine: str) -> nvidia.Gpu:
    """The first GPU that this process may use. Asked of the driver, before any TensorRT is touched: without a driver
    some of its modules end the process.

    Raises:
        ProviderError: there is none; ``engine`` is what needs it.
    """
    found = driver()
    if not found:
        raise ProviderError(
            f"{engine} needs an NVIDIA GPU: {found.fault}. `edgepure doctor` shows what works here; choose "
            f"the provider {DEFAULT_PROVIDER} to run on the CPU on purpose",
            code="E-provider-device",
        )
    error, count = bindings().runtime.cudaGetDeviceCount()
    if int(error) != 0 or count < 1:
        cuda = f", which runs CUDA {found.cuda}," if found.cuda else ""
        raise ProviderError(
            f"{engine}: the installed cuda-bindings do not fit the driver{cuda} ({error.name}); "
            f"{CUDA_BINDINGS.on(jetson.find(), found) or '`edgepure doctor` shows what is there'}",
            code="E-cuda-driver",
        )
    return found.gpus[0]


def start_cuda() -> None:
    """Make CUDA ready in this thread: calls of its driver interface need that."""
    call("cudaSetDevice", 0)


class Stream:
    """A stream of its own: the default one synchronises more, and must not be captured."""

    def __init__(self) -> None:
        self.handle: Any = call("cudaStreamCreateWithFlags", bindings().runtime.cudaStreamNonBlocking)

    def __int__(self) -> int:
        return int(self.handle)

    def wait(self) -> None:
        """Return when everything on the stream is done."""
        call("cudaStreamSynchronize", self.handle)

    def close(self) -> None:
        if self.handle is not None:
            call("cudaStreamDestroy", self.handle)
            self.handle = None


class Event:
    """A point on a stream that the host can wait for."""

    def __init__(self) -> None:
        self.handle: Any = call("cudaEventCreateWithFlags", bindings().runtime.cudaEventDisableTiming)

    def record(self, stream: Stream) -> None:
        call("cudaEventRecord", self.handle, stream.handle)

    def wait(self) -> None:
        """Return when the stream has passed the point; at once if none was recorded."""
        call("cudaEventSynchronize", self.handle)

    def close(self) -> None:
        if self.handle is not None:
            call("cudaEventDestroy", self.handle)
            self.handle = None


class DeviceBuffer:
    """Memory on the GPU, filled with zeros. CUDA aligns it to 256 bytes."""

    def __init__(self, nbytes: int, stream: Stream) -> None:
        self.nbytes = nbytes
        self.pointer = int(call("cudaMalloc", max(nbytes, 1)))
        call("cudaMemsetAsync", self.pointer, 0, nbytes, stream.handle)

    def close(self) -> None:
        if self.pointer:
            call("cudaFree", self.pointer)
            self.pointer = 0


class PinnedArray:
    """An array in page-locked host memory, from which the GPU copies while the host goes on. Filled with zeros."""

    def __init__(self, shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> None:
        wanted = np.dtype(dtype)
        nbytes = math.prod(shape) * wanted.itemsize
        self.pointer = int(call("cudaMallocHost", max(nbytes, 1)))
        raw = (ctypes.c_uint8 * nbytes).from_address(self.pointer)
        self.array: NDArray[Any] = np.frombuffer(memoryview(raw), dtype=wanted).reshape(shape)
        self.array[...] = 0

    def close(self) -> None:
        """Free the memory; `array` must not be touched any more."""
        if self.pointer:
            call("cudaFreeHost", self.pointer)
            self.pointer, self.array = 0, np.empty(0)


def to_device(target: int, source: NDArray[Any], stream: Stream) -> None:
    """Copy a C-contiguous array to the GPU. From pinned memory this returns at once, and ``source`` must stay as it is
    until the stream has passed; from other memory the host may change it when this returns."""
    kind = bindings().runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
    call("cudaMemcpyAsync", target, _address(source), source.nbytes, kind, stream.handle)


def to_host(target: NDArray[Any], source: int, stream: Stream) -> None:
    """Copy from the GPU into a C-contiguous array; wait for the stream before reading it."""
    kind = bindings().runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
    call("cudaMemcpyAsync", _address(target), source, target.nbytes, kind, stream.handle)


def on_device(target: int, source: int, nbytes: int, stream: Stream) -> None:
    """Copy from one place on the GPU to another."""
    kind = bindings().runtime.cudaMemcpyKind.cudaMemcpyDeviceToDevice
    call("cudaMemcpyAsync", target, source, nbytes, kind, stream.handle)


def _address(array: NDArray[Any]) -> int:
    if not array.flags.c_contiguous:
        raise ValueError("only C-contiguous arrays can be copied to and from a GPU")
    return int(array.ctypes.data)


class Graph:
    """What was put on a stream once, to be launched again in one go (a CUDA graph)."""

    def __init__(self, stream: Stream, work: Callable[[], None]) -> None:
        """Record what ``work`` puts on the stream, without executing it.

        Raises:
            EdgepureError: it cannot be captured. Nothing is left behind, and the stream can be used as before.
        """
        runtime = bindings().runtime
        # ThreadLocal: what other threads do with CUDA meanwhile does not spoil the recording.
        mode = runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        call("cudaStreamBeginCapture", stream.handle, mode)
        try:
            work()
        except BaseException:
            _, graph = runtime.cudaStreamEndCapture(stream.handle)
            self._discard(graph)
            raise
        graph = call("cudaStreamEndCapture", stream.handle)
        try:
            self._executable: Any = call("cudaGraphInstantiate", graph, 0)
        finally:
            self._discard(graph)
        self._stream = stream

    @staticmethod
    def _discard(graph: Any) -> None:
        """Forget a recording, and the error that a failed one leaves."""
        runtime = bindings().runtime
        if graph is not None and int(graph):
            runtime.cudaGraphDestroy(graph)
        runtime.cudaGetLastError()

    def launch(self) -> None:
        call("cudaGraphLaunch", self._executable, self._stream.handle)

    def close(self) -> None:
        if self._executable is not None:
            call("cudaGraphExecDestroy", self._executable)
            self._executable = None
