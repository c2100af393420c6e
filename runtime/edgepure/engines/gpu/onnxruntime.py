"""ONNX Runtime on CUDA: all on one stream of ours, the state of the slots on the GPU, CUDA graphs if asked for."""

from __future__ import annotations

import ctypes
import importlib.util
import io
import sys
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import EdgepureError, ProviderError
from ...machine.nvidia import Driver
from ...types import Float32
from ..base import BoundCall
from ..kind import Kind, Opening, Probe
from ..onnxruntime import OnnxRuntimeEngine, gpu_words, import_onnxruntime, require_provider
from ..onnxruntime import probe as try_on
from .cuda import DeviceBuffer, Stream, require_gpu, start_cuda
from .stepper import DeviceStepper, image_shape_of, make_device_noise

#: ``gpu_graph_id`` with which ONNX Runtime neither captures nor launches a graph.
_NO_GRAPH = "-1"


def open_graph(opening: Opening) -> CudaEngine:
    """The engine of the row of ONNX Runtime on CUDA."""
    return CudaEngine(opening.path, precision=opening.precision)


def probe(kind: Kind, driver: Driver) -> Probe:
    """Run one node on the GPU."""
    found = try_on(kind, driver, load_cuda_libraries, why_inactive)  # loads what the engine loads
    return found if found.works or driver else replace(found, detail=f"{found.detail}; {driver.fault}")


def load_cuda_libraries(ort: Any) -> None:
    """Load the CUDA libraries that were installed as Python packages, wherever Python finds those: ONNX Runtime itself
    looks only where the system has libraries and in the folder that it is in. Says on stderr what is not found."""
    if not hasattr(ort, "preload_dlls"):
        return
    packages = importlib.util.find_spec("nvidia")
    places = (packages.submodule_search_locations if packages is not None else None) or ()
    for folder in (path for place in places for path in sorted(Path(place).glob("*/lib"))):
        with redirect_stdout(io.StringIO()):  # one folder has only some of them
            ort.preload_dlls(directory=str(folder))
    with redirect_stdout(sys.stderr):
        ort.preload_dlls()


def why_inactive(ort: Any) -> str:
    """What the CUDA provider lacks, from loading its library, and cuDNN, which it looks for at the first convolution;
    empty if nothing is missing."""
    library = str(Path(ort.__file__).parent / "capi" / "libonnxruntime_providers_cuda.so")
    for needed in (library, "libcudnn.so.9"):
        try:
            ctypes.CDLL(needed)
        except OSError as error:
            if "libcuda.so" in str(error):
                return "no NVIDIA driver (libcuda) was found on this machine"
            if "cannot open shared object" in str(error):
                return f"{error} (`pip install 'onnxruntime-gpu[cuda,cudnn]'` brings it)"
    return ""


class CudaEngine(OnnxRuntimeEngine):
    """One ONNX graph in one session on the GPU."""

    def __init__(self, path: Path, *, precision: str = "fp32", graphs: bool = False, tf32: bool = False) -> None:
        """Open a graph.

        Args:
            path: the ``.onnx`` file; external data is looked up beside it.
            precision: of the heavy arithmetic in the graph, as the manifest says.
            graphs: let ONNX Runtime capture a CUDA graph for each binding of `CudaStepper` and of `bound`. Its graphs
                belong to the thread that made them, and while it captures one no other thread may use CUDA.
            tf32: let fp32 matrices be computed with 10 bits of mantissa. Where ``precision`` is less than fp32 this is
                always allowed: ONNX Runtime (1.31) otherwise keeps convolutions of every type off the tensor cores.

        Raises:
            ProviderError: ONNX Runtime without CUDA, no GPU, or CUDA does not start.
            BundleError: the file is not an ONNX graph.
        """
        require_provider("cuda")
        self.gpu = require_gpu("provider 'cuda'")
        load_cuda_libraries(import_onnxruntime())
        self.graphs = graphs
        start_cuda()
        self.stream = Stream()
        options = {
            "device_id": "0",
            "user_compute_stream": str(int(self.stream)),
            "use_tf32": str(int(tf32 or precision != "fp32")),
            "enable_cuda_graph": str(int(graphs)),
        }
        try:
            super().__init__(path, "cuda", precision=precision, options=options)
        except BaseException:
            self.stream.close()
            raise
        self._graph_ids = 0

    def _why_inactive(self, ort: Any) -> str:
        return why_inactive(ort)

    def _run(self, feeds: dict[str, NDArray[np.generic]]) -> dict[str, Float32]:
        settings = self._settings(_NO_GRAPH) if self.graphs else None
        try:
            values = self.session.run(list(self.outputs), feeds, settings)
        except Exception as error:  # ONNX Runtime raises many unrelated classes
            raise _fault(error) from None
        return dict(zip(self.outputs, values, strict=True))

    def launch(self, binding: Any, settings: Any) -> None:
        """Start a call with what `binding` gave."""
        try:
            self.session.run_with_iobinding(binding, settings)
        except Exception as error:
            raise _fault(error) from None

    def binding(self, batch: int, addresses: dict[str, int]) -> tuple[Any, Any]:
        """A binding of addresses on the GPU for a batch, and the settings to run it with: without waiting for the end,
        and with a CUDA graph of its own."""
        binding = self.session.io_binding()
        for name, spec in self.inputs.items():
            shape = (batch, *(int(n) for n in spec.shape[1:]))
            binding.bind_input(name, "cuda", 0, np.float32, shape, addresses[name])
        for name, spec in self.outputs.items():
            shape = (batch, *(int(n) for n in spec.shape[1:]))
            binding.bind_output(name, "cuda", 0, np.float32, shape, addresses[name])
        self._graph_ids += 1
        settings = self._settings(str(self._graph_ids) if self.graphs else None)
        settings.add_run_config_entry("disable_synchronize_execution_providers", "1")
        return binding, settings

    @staticmethod
    def _settings(graph_id: str | None) -> Any:
        settings = import_onnxruntime().RunOptions()
        if graph_id is not None:
            settings.add_run_config_entry("gpu_graph_id", graph_id)
        return settings

    def bound(self, batch: int) -> BoundCall:
        self.check_open()
        return _DeviceCall(self, batch)

    def stepper(self, slots: int = 8) -> CudaStepper:  # type: ignore[override]
        self.check_open()
        return CudaStepper(self, slots)

    def _close(self) -> None:
        self.stream.wait()
        super()._close()
        self.stream.close()


def _fault(error: Exception) -> EdgepureError:
    said = gpu_words(error)
    if "memory" in said.lower() and ("allocate" in said.lower() or "out of" in said.lower()):
        return EdgepureError(
            f"the GPU's memory is full ({said}); use fewer slots or smaller batches, or end what else runs on the GPU",
            code="E-gpu-memory",
        )
    if "cudnn is unavailable" in said.lower():
        return ProviderError(
            "provider 'cuda' needs cuDNN, which was not found; install it with "
            "`pip install 'onnxruntime-gpu[cuda,cudnn]'`",
            code="E-package-cudnn",
        )
    return ProviderError(
        f"CUDA: ONNX Runtime failed: {said}; `edgepure doctor` shows what works here", code="E-engine-run"
    )


class _DeviceCall(BoundCall):
    """A session on buffers of its own on the GPU."""

    def __init__(self, engine: CudaEngine, batch: int) -> None:
        self.inputs = {}
        self._engine: CudaEngine | None = engine
        self._stream = engine.stream
        specs = {**engine.inputs, **engine.outputs}
        self._buffers = {
            name: DeviceBuffer(batch * int(np.prod([int(n) for n in spec.shape[1:]])) * 4, engine.stream)
            for name, spec in specs.items()
        }
        self._binding, self._settings = engine.binding(batch, {n: b.pointer for n, b in self._buffers.items()})

    def __call__(self) -> None:
        assert self._engine is not None, "closed"
        self._engine.launch(self._binding, self._settings)

    def wait(self) -> None:
        self._stream.wait()

    def close(self) -> None:
        self._stream.wait()
        self._engine = self._binding = None  # a binding would keep the session beyond the stream that it uses
        for buffer in self._buffers.values():
            buffer.close()


class CudaStepper(DeviceStepper):
    """The slots of a step graph on ONNX Runtime. Bindings are made once for each number of active slots and each
    direction between the two states; ONNX Runtime takes any batch, so none is filled up."""

    def __init__(self, engine: CudaEngine, capacity: int = 8, *, noise: str = "auto") -> None:
        """Allocate the slots.

        Args:
            engine: of the graph ``step`` or ``step_learned``; it must outlive the stepper.
            capacity: number of slots.
            noise: ``device``, ``host``, or ``auto``: on the device where its kernel can be compiled.

        Raises:
            ProviderError: CUDA refuses, or the noise kernel cannot be compiled and ``device`` was asked for.
        """
        kernels, why_not = make_device_noise(engine.gpu, noise)
        super().__init__(
            image_shape_of(engine.inputs["x"].shape),
            capacity,
            range(1, capacity + 1),
            engine.stream,
            learned="noise_out" in engine.inputs,
            noise=kernels,
            why_not=why_not,
        )
        self._engine = engine
        self._bindings: dict[tuple[int, int], tuple[Any, Any]] = {}

    def _enqueue_network(self, bucket: int, now: int) -> None:
        key = (bucket, now)
        if key not in self._bindings:
            self._bindings[key] = self._engine.binding(bucket, self._addresses(now))
        self._engine.launch(*self._bindings[key])

    def _close(self) -> None:
        self._stream.wait()
        self._bindings.clear()
        super()._close()
