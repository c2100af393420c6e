"""Runs TensorRT engines: plain calls, and the slots of a step graph with the whole loop on the GPU.

One way for TensorRT 10.3 to 11 and TensorRT for RTX. Every batch size of an engine has an optimisation profile with
fixed shapes. An execution context belongs to one profile and one set of addresses and is never changed afterwards, so
what CUDA captured of it stays valid; all contexts of an engine share one block of activation memory, because they run
one after another on one stream.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...bundle.bundle import Bundle
from ...errors import EdgepureError, ProviderError
from ...files.atomic import write_bytes
from ...types import Float32
from ..base import BoundCall, Engine, TensorSpec
from ..gpu.cuda import DeviceBuffer, Stream, require_gpu, start_cuda, to_device, to_host
from ..gpu.stepper import DeviceStepper, image_shape_of, make_device_noise
from ..kind import Opening
from .context import Captured, Context
from .engine_files import Machine, find_plan, graph_entry
from .module import fault, import_tensorrt, make_log


def open_built(opening: Opening) -> TensorRTEngine:
    """The engine of a bundle's graph that was built for this device, on the TensorRT of a row."""
    assert opening.bundle is not None, "a row of engines that are built"
    return TensorRTEngine(opening.bundle, opening.graph, opening.variant, opening.kind.provider)


class TensorRTEngine(Engine):
    """One engine of a bundle, loaded onto the GPU."""

    def __init__(self, bundle: Bundle, graph: str, precision: str = "fp32", provider: str | None = None) -> None:
        """Find the engine that fits this device and load it.

        Args:
            bundle: whose hashes have to hold: an engine is an executable.
            graph, precision: which one (see `Bundle.graph_path`).
            provider: ``tensorrt`` or ``tensorrt-rtx``; None: the first that is installed.

        Raises:
            ProviderError: no TensorRT, no GPU, or no engine that fits; says what to install or to build.
            BundleError: the bundle has no such graph, or its files are not those of the manifest.
        """
        self.gpu = require_gpu(f"provider {provider or 'tensorrt'!r}")  # first: without a driver TensorRT may crash
        self._trt = trt = import_tensorrt(provider)
        self.provider, self.graph, self.precision = trt.provider, graph, precision
        entry = graph_entry(bundle, graph, precision)
        self._plan = find_plan(bundle, graph, precision, trt, Machine.here())
        self.batches = self._plan.key.batches
        self.inputs = {t.name: TensorSpec(t.name, t.shape, t.dtype) for t in entry.inputs}
        self.outputs = {t.name: TensorSpec(t.name, t.shape, t.dtype) for t in entry.outputs}
        start_cuda()
        # TensorRT's objects only borrow the ones before them, so all of them are kept, and given back in reverse.
        self._log = make_log(trt)
        self._runtime = trt.module.Runtime(self._log)
        if "VERSION_COMPATIBLE" in self._plan.key.flags:
            self._runtime.engine_host_code_allowed = True  # such an engine brings its own runtime library
        self._engine = self._runtime.deserialize_cuda_engine(self._plan.read())
        if self._engine is None:
            raise fault(f"loading {self._plan.path}", trt, self._log)
        self._check_interface()
        self._config, self._cache = self._runtime_config()
        self.stream = Stream()
        self._memory = DeviceBuffer(int(self._engine.device_memory_size_v2), self.stream)
        self._own: _OwnBuffers | None = None

    def _check_interface(self) -> None:
        module, engine = self._trt.module, self._engine
        sides = {module.TensorIOMode.INPUT: self.inputs, module.TensorIOMode.OUTPUT: self.outputs}
        found: dict[str, Any] = {}
        for index in range(engine.num_io_tensors):
            name = engine.get_tensor_name(index)
            found[name] = engine.get_tensor_mode(name)
            if name not in sides[found[name]] or engine.get_tensor_dtype(name) != module.DataType.FLOAT:
                raise ProviderError(
                    f"{self._plan.path} has the tensor {name!r}, which the bundle's graph does not have",
                    code="E-engine-damaged",
                )
        missing = {*self.inputs, *self.outputs} - set(found)
        if missing or engine.num_optimization_profiles != len(self.batches):
            raise ProviderError(
                f"{self._plan.path} does not belong to its record; build it again with --force", code="E-engine-damaged"
            )

    def _runtime_config(self) -> tuple[Any, Any]:
        """For TensorRT for RTX: compile kernels for the fixed shapes at once, and keep them for the next start."""
        if not self._trt.is_rtx:
            return None, None
        module = self._trt.module
        config = self._engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(module.ExecutionContextAllocationStrategy.USER_MANAGED)
        config.dynamic_shapes_kernel_specialization_strategy = module.DynamicShapesKernelSpecializationStrategy.EAGER
        config.cuda_graph_strategy = module.CudaGraphStrategy.DISABLED  # we capture graphs ourselves
        cache = config.create_runtime_cache()
        path = self._plan.cache_path
        if path.is_file():
            cache.deserialize(path.read_bytes())  # one that does not fit is refused, and then made anew
        config.set_runtime_cache(cache)
        return config, cache

    def context(self, batch: int, addresses: Mapping[str, int], stream: Stream) -> Context:
        """An execution context for a batch size of the engine, bound to addresses for good.

        Raises:
            ProviderError: TensorRT refuses; says what.
            EdgepureError: the engine has been closed.
        """
        self.check_open()
        strategy = self._trt.module.ExecutionContextAllocationStrategy.USER_MANAGED
        context = self._engine.create_execution_context(self._config if self._config is not None else strategy)
        if context is None:
            raise fault(f"preparing {self.graph} for a batch of {batch}", self._trt, self._log)
        bound = Context(context, f"running {self.graph} with a batch of {batch}", self._fault, stream)
        bound.bind(self.batches.index(batch), self._plan.key.profiles[self.batches.index(batch)], addresses)
        bound.give_memory(self._memory)
        return bound

    def _fault(self, what: str) -> EdgepureError:
        return fault(what, self._trt, self._log)

    def _run(self, feeds: dict[str, NDArray[np.generic]]) -> dict[str, Float32]:
        if self._own is None:
            self._own = _OwnBuffers(self)
        total = len(next(iter(feeds.values())))
        parts: list[dict[str, Float32]] = []
        start = 0
        while start < total:
            batch = next((b for b in self.batches if b >= total - start), self.batches[-1])
            end = min(start + batch, total)
            parts.append(self._own.run(batch, {name: array[start:end] for name, array in feeds.items()}))
            start = end
        return {name: np.concatenate([part[name] for part in parts]) for name in self.outputs}

    def bound(self, batch: int) -> BoundCall:
        self.check_open()
        if batch not in self.batches:
            raise ProviderError(
                f"the engine of {self.graph} was built for batches of {', '.join(map(str, self.batches))}, not "
                f"{batch}; build it again with that --batch",
                code="E-engine-batch-range",
            )
        return _DeviceCall(self, batch)

    def stepper(self, slots: int = 8) -> TensorRTStepper:
        self.check_open()
        return TensorRTStepper(self, slots)

    def _close(self) -> None:
        self.stream.wait()
        if self._own is not None:
            self._own.close()
        self._save_cache()
        self._memory.close()
        self.stream.close()
        self._own = self._config = self._cache = self._engine = self._runtime = None

    def _save_cache(self) -> None:
        if self._cache is None:
            return
        blob = bytes(self._cache.serialize())
        path = self._plan.cache_path
        try:
            if not path.is_file() or path.read_bytes() != blob:
                write_bytes(path, blob)
        except (EdgepureError, OSError):
            pass  # a read-only bundle: the kernels are compiled again at the next start


class _OwnBuffers:
    """Inputs and outputs of an engine on the GPU, for calls with arrays of the host."""

    def __init__(self, engine: TensorRTEngine) -> None:
        self._engine, self._stream = engine, engine.stream
        specs = {**engine.inputs, **engine.outputs}
        self._items = {name: tuple(int(n) for n in spec.shape[1:]) for name, spec in specs.items()}
        largest = engine.batches[-1]
        self.buffers = {
            name: DeviceBuffer(largest * int(np.prod(shape)) * 4, self._stream) for name, shape in self._items.items()
        }
        self._contexts: dict[int, Context] = {}

    def context(self, batch: int) -> Context:
        if batch not in self._contexts:
            addresses = {name: buffer.pointer for name, buffer in self.buffers.items()}
            self._contexts[batch] = self._engine.context(batch, addresses, self._stream)
        return self._contexts[batch]

    def run(self, batch: int, feeds: dict[str, NDArray[np.generic]]) -> dict[str, Float32]:
        """Up to ``batch`` images; lanes without one compute what is never read."""
        count = len(next(iter(feeds.values())))
        context = self.context(batch)
        for name, array in feeds.items():
            to_device(self.buffers[name].pointer, np.ascontiguousarray(array), self._stream)
        context.enqueue()
        results = {name: np.empty((count, *self._items[name]), np.float32) for name in self._engine.outputs}
        for name, array in results.items():
            to_host(array, self.buffers[name].pointer, self._stream)
        self._stream.wait()
        return results

    def close(self) -> None:
        for context in self._contexts.values():
            context.close()
        for buffer in self.buffers.values():
            buffer.close()


class _DeviceCall(BoundCall):
    """A call on the engine's own buffers, as a CUDA graph where that is possible."""

    def __init__(self, engine: TensorRTEngine, batch: int) -> None:
        self.inputs = {}
        self._stream = engine.stream
        self._buffers = _OwnBuffers(engine)
        context = self._buffers.context(batch)
        self._call = Captured(self._stream, context.enqueue, context.can_be_captured)

    def __call__(self) -> None:
        self._call()

    def wait(self) -> None:
        self._stream.wait()

    def close(self) -> None:
        self._stream.wait()
        self._call.close()
        self._buffers.close()


class TensorRTStepper(DeviceStepper):
    """The slots of a step graph on TensorRT. A row is one copy of its coefficients and one launch of a CUDA graph,
    which holds the noise kernels and the network."""

    def __init__(self, engine: TensorRTEngine, capacity: int = 8, *, graphs: bool = True, noise: str = "auto") -> None:
        """Allocate the slots.

        Args:
            engine: of the graph ``step`` or ``step_learned``; it must outlive the stepper.
            capacity: slots that are asked for; at most the engine's largest batch is given.
            graphs: capture CUDA graphs.
            noise: ``device``, ``host``, or ``auto``: on the device where its kernel can be compiled.

        Raises:
            ProviderError: CUDA or TensorRT refuse, or the noise kernel cannot be compiled and ``device`` was asked for.
        """
        kernels, why_not = make_device_noise(engine.gpu, noise)
        super().__init__(
            image_shape_of(engine.inputs["x"].shape),
            capacity,
            engine.batches,
            engine.stream,
            learned="noise_out" in engine.inputs,
            noise=kernels,
            why_not=why_not,
        )
        self._engine, self._use_graphs = engine, graphs
        # One context for each bucket and each direction between the two states: its addresses never change.
        self._contexts: dict[tuple[int, int], Context] = {}
        self._calls: dict[tuple[int, int], Captured] = {}

    @property
    def captured(self) -> int:
        """How many CUDA graphs are in use."""
        return sum(call.graph is not None for call in self._calls.values())

    @property
    def not_captured(self) -> str:
        """Why a row is executed without a CUDA graph; empty if nothing stood in the way."""
        return next((call.why_not for call in self._calls.values() if call.why_not), "")

    def _launch(self, bucket: int, now: int) -> None:
        if not self._use_graphs:
            self._enqueue(bucket, now)
            return
        key = (bucket, now)
        if key not in self._calls:
            self._calls[key] = Captured(
                self._stream, lambda: self._enqueue(bucket, now), self._context(bucket, now).can_be_captured
            )
        self._calls[key]()

    def _enqueue_network(self, bucket: int, now: int) -> None:
        self._context(bucket, now).enqueue()

    def _context(self, bucket: int, now: int) -> Context:
        key = (bucket, now)
        if key not in self._contexts:
            self._contexts[key] = self._engine.context(bucket, self._addresses(now), self._stream)
        return self._contexts[key]

    def _close(self) -> None:
        self._stream.wait()
        for captured in self._calls.values():
            captured.close()
        for context in self._contexts.values():
            context.close()
        self._calls.clear()
        self._contexts.clear()
        super()._close()
