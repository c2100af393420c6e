"""TensorRT without a GPU: its interface as edgepure uses it, computing through ONNX Runtime on `fake_cuda`'s memory.

An engine is the path of its ONNX file and its profiles. Stricter than the real one: everything has to happen in the
order that TensorRT asks for, and objects have to outlive what borrows them. Wrong values give what the real one gives
(False, None, -1 and a line in the log), misuse that would crash it raises `Misuse`. `test_fakes.py` compares classes,
methods and parameters with a real module.

``make_module("10.3.0", machine)``, ``("11.4.0", machine)`` and ``("1.7.1", machine, rtx=True)`` differ as those do.
"""

from __future__ import annotations

import gc
import json
import threading
import weakref
from enum import IntEnum
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime
from fake_cuda import Machine, Misuse


class TensorIOMode(IntEnum):
    NONE = 0
    INPUT = 1
    OUTPUT = 2


class DataType(IntEnum):
    FLOAT = 0
    HALF = 1


class MemoryPoolType(IntEnum):
    WORKSPACE = 0


class ExecutionContextAllocationStrategy(IntEnum):
    STATIC = 0
    ON_PROFILE_CHANGE = 1
    USER_MANAGED = 2


class CudaGraphStrategy(IntEnum):
    DISABLED = 0
    WHOLE_GRAPH_CAPTURE = 1


class DynamicShapesKernelSpecializationStrategy(IntEnum):
    LAZY = 0
    EAGER = 1
    NONE = 2


class ComputeCapability(IntEnum):
    NONE = 0
    CURRENT = 1
    SM80 = 80
    SM86 = 86
    SM89 = 89
    SM120 = 120


class ILogger:
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

    def __init__(self) -> None:
        self._ready = True

    def log(self, severity: int, msg: str) -> None:
        raise NotImplementedError


class IProgressMonitor:
    def __init__(self) -> None:
        self._ready = True

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None: ...

    def step_complete(self, phase_name: str, step: int) -> bool:
        return True

    def phase_finish(self, phase_name: str) -> None: ...


def alive(reference: Any, what: str) -> Any:
    """What a weak reference leads to; the real TensorRT would crash where it is gone."""
    gc.collect(0)
    found = reference()
    if found is None:
        raise Misuse(f"{what} was given back too early")
    return found


class ITensor:
    def __init__(self, value: onnx.ValueInfoProto) -> None:
        self.name = value.name
        dims = value.type.tensor_type.shape.dim
        self.shape = tuple(-1 if d.dim_param else d.dim_value for d in dims)


class INetworkDefinition:
    def __init__(self, module: ModuleType, logger: Any) -> None:
        self._module, self._logger = module, logger
        self._path: str | None = None
        self._inputs: list[ITensor] = []
        self._outputs: list[ITensor] = []

    @property
    def num_inputs(self) -> int:
        return len(self._inputs)

    @property
    def num_outputs(self) -> int:
        return len(self._outputs)

    def get_input(self, index: int) -> ITensor:
        return self._inputs[index]

    def get_output(self, index: int) -> ITensor:
        return self._outputs[index]


class ErrorCode(IntEnum):
    MODEL_DESERIALIZE_FAILED = 3
    UNSUPPORTED_NODE = 8


class ParserError:
    def __init__(self, text: str, node: str = "", operator: str = "") -> None:
        self._text, self._node, self._operator = text, node, operator

    def code(self) -> ErrorCode:
        return ErrorCode.UNSUPPORTED_NODE if self._operator else ErrorCode.MODEL_DESERIALIZE_FAILED

    def desc(self) -> str:
        return self._text

    def node_name(self) -> str:
        return self._node

    def node_operator(self) -> str:
        return self._operator


class OnnxParser:
    #: Operators that it has no importer for.
    REFUSED = ("Bernoulli",)

    def __init__(self, network: INetworkDefinition, logger: Any) -> None:
        self._network = weakref.ref(network)  # as the real one, it does not keep the network alive
        self._errors: list[ParserError] = []

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> ParserError:
        return self._errors[index]

    def parse_from_file(self, model: str) -> bool:
        network = alive(self._network, "the network that the parser fills")
        try:
            parsed = onnx.load(model, load_external_data=False)
            onnx.checker.check_model(model)
        except Exception as error:
            self._errors.append(ParserError(f"Failed to parse the ONNX model: {type(error).__name__}"))
            return False
        for node in parsed.graph.node:
            if node.op_type in self.REFUSED:
                text = f"no importer registered for op: {node.op_type}"
                self._errors.append(ParserError(text, node.name or "node", node.op_type))
                return False
        network._path = model
        network._inputs = [ITensor(v) for v in parsed.graph.input]
        network._outputs = [ITensor(v) for v in parsed.graph.output]
        return True


class IOptimizationProfile:
    def __init__(self) -> None:
        self._shapes: dict[str, list[tuple[int, ...]]] = {}

    def set_shape(self, input: str, min: tuple[int, ...], opt: tuple[int, ...], max: tuple[int, ...]) -> None:
        self._shapes[input] = [tuple(min), tuple(opt), tuple(max)]  # anything goes, as in the real one


class ITimingCache:
    def __init__(self, blob: bytes) -> None:
        self._blob = blob

    def serialize(self) -> IHostMemory:
        return IHostMemory(self._blob)


class IHostMemory:
    """No ``len``, as the real one."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    @property
    def nbytes(self) -> int:
        return len(self._data)

    def __bytes__(self) -> bytes:
        return self._data


class IBuilderConfig:
    def __init__(self, module: ModuleType) -> None:
        self._module = module
        self._flags = {module.BuilderFlag.TF32}
        self._profiles: list[IOptimizationProfile] = []
        self._pools: dict[Any, int] = {}
        self._cache: ITimingCache | None = None
        self._targets: dict[int, Any] = {}
        self.max_aux_streams = 7
        self.progress_monitor: IProgressMonitor | None = None
        if module.rtx:
            self.num_compute_capabilities = 0

    def set_flag(self, flag: Any) -> None:
        if flag.name in ("FP16", "BF16", "INT8", "FP8"):
            raise Misuse("a precision flag on a strongly typed network")
        self._flags.add(flag)

    def clear_flag(self, flag: Any) -> None:
        self._flags.discard(flag)

    def get_flag(self, flag: Any) -> bool:
        return flag in self._flags

    def set_memory_pool_limit(self, pool: MemoryPoolType, pool_size: int) -> None:
        self._pools[pool] = pool_size

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        for low, best, high in profile._shapes.values():
            if not len(low) == len(best) == len(high) or not all(
                0 < a <= b <= c for a, b, c in zip(low, best, high, strict=True)
            ):
                return -1
        self._profiles.append(profile)
        return len(self._profiles) - 1

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache | None:
        blob = bytes(serialized_timing_cache)
        return None if blob and not blob.startswith(b"timing") else ITimingCache(blob)

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        if cache._blob and not ignore_mismatch and cache._blob != f"timing {self._module.__version__}".encode():
            return False
        self._cache = cache
        return True

    def get_timing_cache(self) -> ITimingCache:
        return ITimingCache(f"timing {self._module.__version__}".encode())

    def set_compute_capability(self, compute_capability: ComputeCapability, index: int) -> bool:
        assert index < self.num_compute_capabilities
        self._targets[index] = compute_capability
        return True


class Builder:
    #: Makes the next builds fail with this line in the log.
    fails = ""
    #: Steps that a build reports, and seconds between them.
    steps, pause = 4, 0.0

    def __init__(self, logger: Any) -> None:
        assert getattr(logger, "_ready", False), "ILogger.__init__ was not called"
        self._logger = logger
        self._module: ModuleType = type(self).module  # type: ignore[attr-defined]
        if not self._module.rtx and self._module.machine is None:
            raise Misuse("a builder without a driver")

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        strong = 1 << int(self._module.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        if not flags & strong:
            raise Misuse("the network is not strongly typed")
        return INetworkDefinition(self._module, self._logger)

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig(self._module)

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> IHostMemory | None:
        if self.fails:
            self._logger.log(ILogger.ERROR, self.fails)
            return None
        if not config._profiles:
            self._logger.log(ILogger.ERROR, "Network has dynamic inputs, but no optimization profile has been defined")
            return None
        for profile in config._profiles:
            if set(profile._shapes) != {tensor.name for tensor in network._inputs}:
                self._logger.log(ILogger.ERROR, "a profile does not fit the inputs")
                return None
        if config.progress_monitor is not None and not self._report(config.progress_monitor):
            self._logger.log(ILogger.ERROR, "cancelled by the progress monitor")
            return None
        plan = {
            "onnx": str(Path(str(network._path)).resolve()),
            "version": self._module.__version__,
            "profiles": [profile._shapes for profile in config._profiles],
            "flags": sorted(flag.name for flag in config._flags),
            "targets": [config._targets[i].name for i in sorted(config._targets)],
            "pools": {pool.name: size for pool, size in config._pools.items()},
            "aux": config.max_aux_streams,
        }
        return IHostMemory(json.dumps(plan).encode())

    def _report(self, monitor: IProgressMonitor) -> bool:
        """Two nested phases, from another thread, as the real one does."""
        going = [True]

        def work() -> None:
            monitor.phase_start("Building Engine", None, self.steps)
            for step in range(self.steps):
                monitor.phase_start("Tactics", "Building Engine", 2)
                for inner in range(2):
                    going[0] &= monitor.step_complete("Tactics", inner)
                    threading.Event().wait(self.pause)
                monitor.phase_finish("Tactics")
                going[0] &= monitor.step_complete("Building Engine", step)
                if not going[0]:
                    return
            monitor.phase_finish("Building Engine")

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        return going[0]


class Runtime:
    def __init__(self, logger: Any) -> None:
        assert getattr(logger, "_ready", False), "ILogger.__init__ was not called"
        self._module: ModuleType = type(self).module  # type: ignore[attr-defined]
        if self._module.machine is None:
            raise Misuse("a runtime without a driver crashes")
        self._logger = logger
        self.engine_host_code_allowed = False

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        try:
            plan = json.loads(bytes(serialized_engine))
        except ValueError:
            self._logger.log(ILogger.ERROR, "Serialization assertion magicTag failed: magic tag does not match")
            return None
        compatible = "VERSION_COMPATIBLE" in plan["flags"]
        if compatible and not self.engine_host_code_allowed:
            self._logger.log(ILogger.ERROR, "host code is not allowed")
            return None
        if plan["version"] != self._module.__version__ and not compatible:
            self._logger.log(
                ILogger.ERROR, "Serialization assertion stdVersionRead == kVERSION failed. Version mismatch"
            )
            return None
        return ICudaEngine(self, plan)


class IRuntimeCache:
    def __init__(self) -> None:
        self._blob = b""

    def deserialize(self, blob: bytes) -> bool:
        self._blob = bytes(blob)
        return True

    def serialize(self) -> IHostMemory:
        return IHostMemory(self._blob or b"kernels")


class IRuntimeConfig:
    def __init__(self) -> None:
        self._strategy = ExecutionContextAllocationStrategy.STATIC
        self._cache: IRuntimeCache | None = None
        self.cuda_graph_strategy = CudaGraphStrategy.DISABLED
        self.dynamic_shapes_kernel_specialization_strategy = DynamicShapesKernelSpecializationStrategy.LAZY

    def set_execution_context_allocation_strategy(self, strategy: Any = None) -> None:
        self._strategy = strategy

    def create_runtime_cache(self) -> IRuntimeCache:
        return IRuntimeCache()

    def set_runtime_cache(self, cache: IRuntimeCache | None = None) -> bool:
        self._cache = cache
        return True


class ICudaEngine:
    #: Bytes of activations of one image.
    ACTIVATIONS = 1000

    def __init__(self, runtime: Runtime, plan: dict[str, Any]) -> None:
        self._runtime, self._plan, self._module = weakref.ref(runtime), plan, runtime._module
        self._logger = runtime._logger
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 3
        self._session = onnxruntime.InferenceSession(plan["onnx"], options, providers=["CPUExecutionProvider"])
        self._tensors = [*self._session.get_inputs(), *self._session.get_outputs()]
        self._names = [tensor.name for tensor in self._tensors]
        self._inputs = [tensor.name for tensor in self._session.get_inputs()]

    @property
    def num_io_tensors(self) -> int:
        return len(self._names)

    @property
    def num_optimization_profiles(self) -> int:
        return len(self._plan["profiles"])

    @property
    def device_memory_size_v2(self) -> int:
        return self.ACTIVATIONS * max(shapes[self._inputs[0]][2][0] for shapes in self._plan["profiles"])

    def get_tensor_name(self, index: int) -> str:
        return self._names[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in self._inputs else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        return DataType.FLOAT

    def create_runtime_config(self) -> IRuntimeConfig:
        return IRuntimeConfig()

    def create_execution_context(self, strategy: Any = ExecutionContextAllocationStrategy.STATIC) -> IExecutionContext:
        alive(self._runtime, "the runtime of an engine")
        chosen = strategy._strategy if isinstance(strategy, IRuntimeConfig) else strategy
        if chosen != ExecutionContextAllocationStrategy.USER_MANAGED:
            raise Misuse("a context that allocates memory of its own")
        if not self._module.rtx:
            return IExecutionContext(self)
        if not isinstance(strategy, IRuntimeConfig):
            raise Misuse("a context of TensorRT for RTX without its runtime config: kernels would be compiled lazily")
        if "REQUIRE_USER_ALLOCATION" not in self._plan["flags"]:
            raise Misuse("an engine that allocates memory when it runs cannot be captured")
        return RtxExecutionContext(self)


class IExecutionContext:
    def __init__(self, engine: ICudaEngine) -> None:
        self._engine = weakref.ref(engine)  # as the real one, it does not keep its engine alive
        self._machine: Machine = engine._module.machine
        self._session, self._logger = engine._session, engine._logger
        self._profile = 0
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._memory = (0, 0)
        self._warm = False

    def _refuse(self, why: str) -> bool:
        self._logger.log(ILogger.ERROR, why)
        return False

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        self._machine.stream(stream_handle)
        if profile_index >= alive(self._engine, "the engine of a context").num_optimization_profiles:
            return self._refuse("no such profile")
        self._profile, self._shapes, self._warm = profile_index, {}, False
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        profiles = alive(self._engine, "the engine of a context")._plan["profiles"]
        limits = profiles[self._profile].get(name)
        if limits is None:
            return self._refuse(f"no input {name!r}")
        low, _, high = limits
        if len(shape) != len(low) or not all(a <= n <= b for a, n, b in zip(low, shape, high, strict=True)):
            return self._refuse(f"the shape {shape} of {name!r} is outside the profile")
        self._shapes[name], self._warm = tuple(shape), False
        return True

    def infer_shapes(self) -> list[str]:
        return [name for name in alive(self._engine, "the engine")._inputs if name not in self._shapes]

    def set_tensor_address(self, name: str, memory: int) -> bool:
        if name not in alive(self._engine, "the engine of a context")._names:
            return self._refuse(f"no tensor {name!r}")
        self._machine.on_device(memory, 1)
        if memory % 256:
            raise Misuse(f"{name!r} is not aligned")
        self._addresses[name], self._warm = memory, False
        return True

    def set_device_memory(self, memory: int, size: int) -> None:
        if size < alive(self._engine, "the engine of a context").device_memory_size_v2 or memory % 256:
            raise Misuse("too little memory for activations, or not aligned")
        self._memory = (memory, size)

    def execute_async_v3(self, stream_handle: int) -> bool:
        engine = alive(self._engine, "the engine of a context")
        alive(engine._runtime, "the runtime of an engine")
        if missing := self.infer_shapes():
            return self._refuse(f"no shape for {missing}")
        if missing := [name for name in engine._names if name not in self._addresses]:
            return self._refuse(f"no address for {missing}")
        if not self._memory[1]:
            raise Misuse("no memory for activations")
        stream = self._machine.stream(stream_handle)
        if stream.capture is not None and not self._warm:
            raise Misuse("captured before a warm run with these shapes and addresses")
        self._warm = True
        batch = next(iter(self._shapes.values()))[0]
        shapes, addresses, memory = dict(self._shapes), dict(self._addresses), self._memory

        def work() -> None:
            self._machine.on_device(*memory)[:] = 0xEE  # activations overwrite whatever was there
            feeds = {
                name: self._machine.on_device(addresses[name], int(np.prod(shape)) * 4).view(np.float32).reshape(shape)
                for name, shape in shapes.items()
            }
            results = engine._session.run(None, {name: value.copy() for name, value in feeds.items()})
            for tensor, value in zip(engine._session.get_outputs(), results, strict=True):
                assert len(value) == batch and value.dtype == np.float32
                place = self._machine.on_device(addresses[tensor.name], value.nbytes)
                place.view(np.float32)[:] = value.reshape(-1)

        self._machine.put(stream_handle, work)
        return True


class RtxExecutionContext(IExecutionContext):
    def is_stream_capturable(self, stream: int) -> bool:
        self._machine.stream(stream)
        return self._machine.captures


#: The classes whose interface is compared with a real module's.
CLASSES: tuple[type, ...] = (
    ILogger,
    IProgressMonitor,
    ITensor,
    INetworkDefinition,
    ParserError,
    OnnxParser,
    IOptimizationProfile,
    ITimingCache,
    IHostMemory,
    IBuilderConfig,
    Builder,
    Runtime,
    ICudaEngine,
    IExecutionContext,
)
RTX_CLASSES: tuple[type, ...] = (IRuntimeCache, IRuntimeConfig)
ENUMS: tuple[type[IntEnum], ...] = (
    ErrorCode,
    TensorIOMode,
    DataType,
    MemoryPoolType,
    ExecutionContextAllocationStrategy,
)
RTX_ENUMS: tuple[type[IntEnum], ...] = (CudaGraphStrategy, DynamicShapesKernelSpecializationStrategy, ComputeCapability)


def make_module(version: str, machine: Machine | None, *, rtx: bool = False) -> ModuleType:
    """A module like ``tensorrt`` (or ``tensorrt_rtx``) of that version on a machine; None: one without a driver."""
    module = ModuleType("tensorrt_rtx" if rtx else "tensorrt")
    module.__version__, module.machine, module.rtx = version, machine, rtx  # type: ignore[attr-defined]
    old = version.startswith("10.")
    flags = {"TF32": 7 if old else 6, "VERSION_COMPATIBLE": 13 if old else 12}  # the numbers moved
    flags |= {"FP16": 0, "INT8": 1} if old else {}
    flags |= {"REQUIRE_USER_ALLOCATION": 28} if rtx else {}
    module.BuilderFlag = IntEnum("BuilderFlag", flags)  # type: ignore[attr-defined]
    strong = {"EXPLICIT_BATCH": 0, "STRONGLY_TYPED": 1} if old else {"STRONGLY_TYPED": 0}
    module.NetworkDefinitionCreationFlag = IntEnum("NetworkDefinitionCreationFlag", strong)  # type: ignore[attr-defined]
    for part in (*CLASSES, *ENUMS, *((*RTX_CLASSES, *RTX_ENUMS) if rtx else ())):
        setattr(module, part.__name__, part)
    for part in (Builder, Runtime):
        setattr(module, part.__name__, type(part.__name__, (part,), {"module": module}))
    return module
