"""A GPU that is not there: the part of cuda-bindings that edgepure uses, on a CPU, and stricter than the real one.

- Device memory is a separate world of made-up addresses. A host pointer used as a device pointer, a write past the end
  of an allocation or a use after free is an error at once.
- A stream does nothing until somebody waits for it. So page-locked memory that is read too early holds nonsense, and
  what is overwritten too early arrives as nonsense.
- Only what CUDA can capture may happen while a stream is captured.

Misuse raises `Misuse`; errors that CUDA reports are returned as it returns them. `test_fakes.py` compares every
function with the real module's.
"""
# ruff: noqa: N802 - the names are CUDA's

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from cuda.bindings import driver as real_driver
from cuda.bindings import nvrtc as real_nvrtc
from cuda.bindings import runtime as real_runtime

from edgepure.rows.philox import Stream as NoiseStream
from edgepure.rows.philox import normals, philox4x32

OK = real_runtime.cudaError_t.cudaSuccess
DRIVER_OK = real_driver.CUresult.CUDA_SUCCESS
#: What the fake takes over from the real modules as it is.
CONSTANTS = (
    "cudaError_t",
    "cudaMemcpyKind",
    "cudaStreamCaptureMode",
    "cudaStreamNonBlocking",
    "cudaEventDisableTiming",
)
#: First made-up device address; no process has memory there.
DEVICE = 0x7000_0000_0000_0000


class Misuse(AssertionError):  # noqa: N818
    """CUDA was used in a way that is wrong, even if the real one might not notice."""


Work = Callable[[], None]


@dataclass
class FakeStream:
    queue: list[Work] = field(default_factory=list)
    capture: list[Work] | None = None
    spoiled: bool = False


@dataclass
class FakeEvent:
    stream: FakeStream | None = None
    mark: Work | None = None


class Machine:
    """Memory, streams, graphs and counters of the GPU."""

    def __init__(self, memory: int = 1 << 30, *, lazy: bool = True, captures: bool = True, nvrtc: bool = True) -> None:
        """``lazy``: streams wait until they are waited for; otherwise they are infinitely fast. ``captures``: False
        lets every capture fail. ``nvrtc``: False takes the compiler away."""
        self.total, self.lazy, self.captures = memory, lazy, captures
        self.device: dict[int, np.ndarray] = {}
        self.pinned: dict[int, np.ndarray] = {}
        self.streams: dict[int, FakeStream] = {}
        self.events: dict[int, FakeEvent] = {}
        self.graphs: dict[int, list[Work]] = {}
        self.executables: dict[int, list[Work]] = {}
        self.modules: set[int] = set()
        self.functions: dict[int, str] = {}
        self.copies: list[tuple[str, int]] = []
        self.launches = 0
        self.allocations = 0
        self.started = False
        self._next_address, self._next_handle = DEVICE, 1
        self.runtime, self.driver = Runtime(self), Driver(self)
        self.nvrtc = real_nvrtc if nvrtc else NoNvrtc()

    # ---- memory -----------------------------------------------------------------------------------------------------

    def handle(self) -> int:
        self._next_handle += 1
        return self._next_handle

    def allocate(self, size: int) -> int:
        address = self._next_address
        self._next_address += (size + 511) // 256 * 256  # never the same address twice
        self.device[address] = np.full(size, 0xA5, np.uint8)
        self.allocations += 1
        return address

    def on_device(self, address: int, size: int) -> np.ndarray:
        """The bytes at an address on the device."""
        for base, block in self.device.items():
            if base <= address < base + len(block):
                if address + size > base + len(block):
                    raise Misuse(f"{size} bytes at {address:#x} go past the end of an allocation of {len(block)}")
                return block[address - base : address - base + size]
        kind = "freed or never allocated" if address >= DEVICE else "a host pointer"
        raise Misuse(f"{address:#x} is no device memory: {kind}")

    def in_pinned(self, address: int, size: int) -> np.ndarray | None:
        for base, block in self.pinned.items():
            if base <= address < base + len(block):
                assert address + size <= base + len(block)
                return block[address - base : address - base + size]
        return None

    def leaks(self) -> dict[str, int]:
        """Everything that was not given back."""
        kinds = ("device", "pinned", "streams", "events", "graphs", "executables", "modules")
        return {kind: len(getattr(self, kind)) for kind in kinds if len(getattr(self, kind))}

    # ---- streams ----------------------------------------------------------------------------------------------------

    def stream(self, handle: Any) -> FakeStream:
        if int(handle) == 0:
            raise Misuse("the default stream must not be used")
        if int(handle) not in self.streams:
            raise Misuse(f"stream {int(handle)} was destroyed or never made")
        return self.streams[int(handle)]

    def put(self, handle: Any, work: Work) -> None:
        """Put work on a stream, or into the graph that is being captured on it."""
        stream = self.stream(handle)
        if stream.capture is not None:
            stream.capture.append(work)
            return
        stream.queue.append(work)
        if not self.lazy:
            self.drain(stream)

    def drain(self, stream: FakeStream, until: Work | None = None) -> None:
        while stream.queue:
            work = stream.queue.pop(0)
            work()
            if work is until:
                return

    def forbidden_in_capture(self, what: str) -> Any:
        """The error code if a stream is captured now, as CUDA gives it; the capture is spoiled then."""
        capturing = [s for s in self.streams.values() if s.capture is not None]
        for stream in capturing:
            stream.spoiled = True
        return real_runtime.cudaError_t.cudaErrorStreamCaptureUnsupported if capturing else None


class Runtime:
    """``cuda.bindings.runtime``."""

    def __init__(self, machine: Machine) -> None:
        self._m = machine

    def __getattr__(self, name: str) -> Any:
        if name in CONSTANTS:
            return getattr(real_runtime, name)
        raise AttributeError(name)

    def cudaGetDeviceCount(self) -> Any:
        return OK, 1

    def cudaSetDevice(self, device: int) -> Any:
        assert device == 0
        self._m.started = True
        return (OK,)

    def cudaGetLastError(self) -> Any:
        return (OK,)

    def cudaGetErrorString(self, error: Any) -> Any:
        return real_runtime.cudaGetErrorString(error)

    def cudaMemGetInfo(self) -> Any:
        return OK, self._m.total - sum(map(len, self._m.device.values())), self._m.total

    def cudaMalloc(self, size: int) -> Any:
        if (error := self._m.forbidden_in_capture("cudaMalloc")) is not None:
            return error, None
        if size > self.cudaMemGetInfo()[1]:
            return real_runtime.cudaError_t.cudaErrorMemoryAllocation, None
        return OK, self._m.allocate(size)

    def cudaFree(self, devPtr: int) -> Any:
        if devPtr not in self._m.device:
            raise Misuse(f"cudaFree of {devPtr:#x}, which is not allocated")
        for stream in self._m.streams.values():
            self._m.drain(stream)  # cudaFree waits for the device
        del self._m.device[devPtr]
        return (OK,)

    def cudaMallocHost(self, size: int) -> Any:
        if (error := self._m.forbidden_in_capture("cudaMallocHost")) is not None:
            return error, None
        block = np.full(size, 0xA5, np.uint8)
        self._m.pinned[block.ctypes.data] = block
        self._m.allocations += 1
        return OK, block.ctypes.data

    def cudaFreeHost(self, ptr: int) -> Any:
        if ptr not in self._m.pinned:
            raise Misuse("cudaFreeHost of memory that is not page-locked")
        for stream in self._m.streams.values():
            self._m.drain(stream)
        del self._m.pinned[ptr]
        return (OK,)

    def cudaMemsetAsync(self, devPtr: int, value: int, count: int, stream: Any) -> Any:
        def work() -> None:
            self._m.on_device(devPtr, count)[:] = value

        if count:
            self._m.on_device(devPtr, count)
            self._m.put(stream, work)
        return (OK,)

    def cudaMemcpyAsync(self, dst: int, src: int, count: int, kind: Any, stream: Any) -> Any:
        m, kinds = self._m, real_runtime.cudaMemcpyKind
        captured = m.stream(stream).capture is not None
        m.copies.append((kind.name.removeprefix("cudaMemcpy"), count))
        if kind == kinds.cudaMemcpyHostToDevice:
            m.on_device(dst, count)
            if src >= DEVICE:
                raise Misuse("a device pointer as the host side of a copy")
            if m.in_pinned(src, count) is None:
                if captured:
                    raise Misuse("a copy from ordinary host memory inside a captured graph")
                data = np.frombuffer(ctypes.string_at(src, count), np.uint8)  # CUDA stages it before it returns

                def work() -> None:
                    m.on_device(dst, count)[:] = data
            else:

                def work() -> None:
                    block = m.in_pinned(src, count)
                    if block is None:
                        raise Misuse("page-locked memory was freed before the GPU had read it")
                    m.on_device(dst, count)[:] = block
        elif kind == kinds.cudaMemcpyDeviceToHost:
            m.on_device(src, count)
            if dst >= DEVICE:
                raise Misuse("a device pointer as the host side of a copy")
            target = m.in_pinned(dst, count)
            if target is None:
                if captured:
                    raise Misuse("a copy to ordinary host memory inside a captured graph")
                m.drain(m.stream(stream))  # such a copy returns when it is done
                ctypes.memmove(dst, m.on_device(src, count).tobytes(), count)
                return (OK,)
            target[:] = 0xFF  # NaN until the stream has passed

            def work() -> None:
                block = m.in_pinned(dst, count)
                if block is None:
                    raise Misuse("page-locked memory was freed before the GPU had written it")
                block[:] = m.on_device(src, count)
        elif kind == kinds.cudaMemcpyDeviceToDevice:
            m.on_device(src, count), m.on_device(dst, count)

            def work() -> None:
                m.on_device(dst, count)[:] = m.on_device(src, count)
        else:
            raise Misuse(f"copy of kind {kind}")
        m.put(stream, work)
        return (OK,)

    def cudaStreamCreateWithFlags(self, flags: int) -> Any:
        if flags != real_runtime.cudaStreamNonBlocking:
            raise Misuse("a stream that waits for the default stream")
        handle = self._m.handle()
        self._m.streams[handle] = FakeStream()
        return OK, real_runtime.cudaStream_t(handle)

    def cudaStreamDestroy(self, stream: Any) -> Any:
        self._m.drain(self._m.stream(stream))
        del self._m.streams[int(stream)]
        return (OK,)

    def cudaStreamSynchronize(self, stream: Any) -> Any:
        if (error := self._m.forbidden_in_capture("cudaStreamSynchronize")) is not None:
            return (error,)
        self._m.drain(self._m.stream(stream))
        return (OK,)

    def cudaEventCreateWithFlags(self, flags: int) -> Any:
        handle = self._m.handle()
        self._m.events[handle] = FakeEvent()
        return OK, real_runtime.cudaEvent_t(handle)

    def cudaEventRecord(self, event: Any, stream: Any) -> Any:
        found = self._m.events[int(event)]
        found.stream, found.mark = self._m.stream(stream), lambda: None
        self._m.put(stream, found.mark)
        return (OK,)

    def cudaEventSynchronize(self, event: Any) -> Any:
        found = self._m.events[int(event)]
        if found.stream is not None and found.mark is not None and found.mark in found.stream.queue:
            self._m.drain(found.stream, found.mark)
        return (OK,)

    def cudaEventDestroy(self, event: Any) -> Any:
        del self._m.events[int(event)]
        return (OK,)

    def cudaStreamBeginCapture(self, stream: Any, mode: Any) -> Any:
        if mode != real_runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal:
            raise Misuse(f"capture mode {mode.name}: other threads would spoil it")
        found = self._m.stream(stream)
        assert found.capture is None
        found.capture, found.spoiled = [], not self._m.captures
        return (OK,)

    def cudaStreamEndCapture(self, stream: Any) -> Any:
        found = self._m.stream(stream)
        if found.capture is None:
            return real_runtime.cudaError_t.cudaErrorIllegalState, None
        works, found.capture = found.capture, None
        if found.spoiled:
            return real_runtime.cudaError_t.cudaErrorStreamCaptureInvalidated, None
        handle = self._m.handle()
        self._m.graphs[handle] = works
        return OK, real_runtime.cudaGraph_t(handle)

    def cudaGraphInstantiate(self, graph: Any, flags: int) -> Any:
        handle = self._m.handle()
        self._m.executables[handle] = self._m.graphs[int(graph)]
        return OK, real_runtime.cudaGraphExec_t(handle)

    def cudaGraphDestroy(self, graph: Any) -> Any:
        del self._m.graphs[int(graph)]
        return (OK,)

    def cudaGraphExecDestroy(self, graphExec: Any) -> Any:
        del self._m.executables[int(graphExec)]
        return (OK,)

    def cudaGraphLaunch(self, graphExec: Any, stream: Any) -> Any:
        for work in self._m.executables[int(graphExec)]:
            self._m.put(stream, work)
        self._m.launches += 1
        return (OK,)


class Driver:
    """``cuda.bindings.driver``; its kernels are those of `edgepure.engines.gpu.noise`, computed by NumPy."""

    CUstream = real_driver.CUstream

    def __init__(self, machine: Machine) -> None:
        self._m = machine

    def cuGetErrorString(self, error: Any) -> Any:
        return DRIVER_OK, b"a made-up error"

    def cuModuleLoadData(self, image: bytes) -> Any:
        assert bytes(image[:4]) == b"\x7fELF"
        if not self._m.started:
            raise Misuse("a module was loaded before CUDA was started")
        handle = self._m.handle()
        self._m.modules.add(handle)
        return DRIVER_OK, real_driver.CUmodule(handle)

    def cuModuleUnload(self, hmod: Any) -> Any:
        self._m.modules.remove(int(hmod))
        return (DRIVER_OK,)

    def cuModuleGetFunction(self, hmod: Any, name: bytes) -> Any:
        assert int(hmod) in self._m.modules and name in (b"fill_normals", b"fill_words")
        handle = self._m.handle()
        self._m.functions[handle] = name.decode()
        return DRIVER_OK, real_driver.CUfunction(handle)

    def cuLaunchKernel(
        self,
        f: Any,
        gridDimX: int,
        gridDimY: int,
        gridDimZ: int,
        blockDimX: int,
        blockDimY: int,
        blockDimZ: int,
        sharedMemBytes: int,
        hStream: Any,
        kernelParams: Any,
        extra: Any,
    ) -> Any:
        if not self._m.modules:
            raise Misuse("a kernel of an unloaded module")
        (target, counters, elements), types = kernelParams
        assert types == (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint)
        assert (gridDimZ, blockDimY, blockDimZ, sharedMemBytes, extra) == (1, 1, 1, 0, 0)
        assert 4 * gridDimX * blockDimX >= elements
        name = self._m.functions[int(f)]

        def work() -> None:
            words = self._m.on_device(counters, gridDimY * 24).view(np.uint32).reshape(gridDimY, 6)
            for slot, (wanted, low, high, row, image, tag) in enumerate(words.astype(np.int64).tolist()):
                if not wanted:
                    continue
                place = self._m.on_device(target + slot * elements * 4, elements * 4)
                if name == "fill_normals":
                    seed, stream, vote = low | high << 32, NoiseStream(tag >> 24), tag & 0xFFFFFF
                    place.view(np.float32)[:] = normals(seed, image, stream, vote, [row], elements)[0]
                else:
                    blocks = np.arange(-(-elements // 4), dtype=np.uint64)
                    counter = np.stack([blocks, *(np.full_like(blocks, n) for n in (row, image, tag))])
                    found = philox4x32(counter, (low, high)).T.reshape(-1)[:elements]
                    place.view(np.uint32)[:] = found.astype(np.uint32)

        self._m.put(hStream, work)
        return (DRIVER_OK,)


class NoNvrtc:
    """cuda-bindings without the library NVRTC."""

    def nvrtcCreateProgram(self, *arguments: Any) -> Any:
        raise RuntimeError("Failed to find nvidia dynamic library: nvrtc")
