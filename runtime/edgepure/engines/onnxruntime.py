"""ONNX Runtime as the engine: buffers bound once, no allocation in the loop, and no silent fallback.

ONNX Runtime runs on the CPU without an error when the provider that was asked for cannot start. Here the session is
asked what it really uses, and anything else than what was wanted is an error.
"""

from __future__ import annotations

import ctypes
import importlib.util
import io
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError, ProviderError, import_fault
from .base import BoundCall, Engine, Float32, TensorSpec, check_kernels
from .host import HostCall, HostStepper

#: Our name of a provider -> ONNX Runtime's name. Its own TensorRT provider is not here: it builds engines inside the
#: first request, and knows TensorRT 10 only; `edgepure.engines.tensorrt.engine` does it without.
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def import_onnxruntime() -> Any:
    """The onnxruntime module, or ProviderError with the line that installs it."""
    try:
        import onnxruntime

        _ = onnxruntime.InferenceSession, onnxruntime.__version__  # a folder left by an uninstallation has neither
    except Exception as error:  # a broken installation raises anything
        raise ProviderError(
            f"{import_fault('onnxruntime', error)}; install it with `pip install edgepure[cpu]`, "
            "or `pip install edgepure[cuda]` on an NVIDIA GPU"
        ) from None
    if hasattr(onnxruntime, "disable_telemetry_events"):
        onnxruntime.disable_telemetry_events()  # where the program imported it before edgepure
    return onnxruntime


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


def require_provider(provider: str) -> str:
    """ONNX Runtime's name of a provider.

    Raises:
        ProviderError: unknown, or not part of the installed ONNX Runtime; with the line that installs it.
    """
    ort = import_onnxruntime()
    if provider not in PROVIDERS:
        raise ProviderError(f"unknown provider {provider!r}; choose one of {', '.join(PROVIDERS)}")
    offered = list(ort.get_available_providers())
    if PROVIDERS[provider] not in offered:
        raise ProviderError(
            f"provider {provider!r} is not part of the installed onnxruntime {ort.__version__} "
            f"(it has {', '.join(offered)}); install `edgepure[cuda]` for NVIDIA GPUs, or pass provider='cpu'"
        )
    return PROVIDERS[provider]


class OnnxRuntimeEngine(Engine):
    """One ONNX graph in one session."""

    def __init__(
        self,
        path: Path,
        provider: str = "cpu",
        threads: int | None = None,
        *,
        precision: str = "fp32",
        options: Mapping[str, str] | None = None,
    ) -> None:
        """Open a graph.

        Args:
            path: the ``.onnx`` file; external data is looked up beside it.
            provider: ``cpu`` or ``cuda``.
            threads: intra-op threads on the CPU; None lets ONNX Runtime choose (one per core).
            precision: of the heavy arithmetic in the graph, as the manifest says.
            options: options of ONNX Runtime's provider.

        Raises:
            ProviderError: unknown, not installed or not active, or it has no kernels for this precision.
            BundleError: the file is not an ONNX graph that this ONNX Runtime can run.
        """
        wanted, ort = require_provider(provider), import_onnxruntime()
        check_kernels(provider, precision)
        if provider == "cuda":
            load_cuda_libraries(ort)
        settings = ort.SessionOptions()
        settings.log_severity_level = 3
        if provider == "cpu" and precision == "fp8":
            # The extended optimisations move float8 tensors through operators that have no float8 kernel.
            settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        if threads is not None:
            settings.intra_op_num_threads = threads
        try:
            # Left to itself, it answers a fault of the GPU, in any later call too, by going on with the CPU.
            self.session = ort.InferenceSession(
                str(path), settings, providers=[(wanted, dict(options or {}))], enable_fallback=0
            )
        except Exception as error:  # ONNX Runtime raises many unrelated classes
            if provider != "cpu":
                raise ProviderError(
                    f"provider {provider!r} cannot run {path.name}: {why_inactive(ort) or gpu_words(error)}; "
                    "`edgepure doctor` shows what works here"
                ) from None
            raise BundleError(
                f"{path.name} cannot be run by onnxruntime {ort.__version__}: {_first_line(error)}"
            ) from None
        active = list(self.session.get_providers())
        if not active or active[0] != wanted:
            raise ProviderError(
                f"asked for provider {provider!r}, but ONNX Runtime started {', '.join(active) or 'nothing'}: "
                f"{why_inactive(ort) or '`edgepure doctor` shows what works here'}. Pass provider='cpu' to run on the "
                "CPU on purpose"
            )
        self.provider = provider
        self.inputs = {i.name: _spec(i) for i in self.session.get_inputs()}
        self.outputs = {o.name: _spec(o) for o in self.session.get_outputs()}

    def _run(self, feeds: dict[str, NDArray[np.generic]]) -> dict[str, Float32]:
        values = _checked(partial(self.session.run, list(self.outputs), feeds))()
        return dict(zip(self.outputs, values, strict=True))

    def bound(self, batch: int) -> BoundCall:
        return HostCall(self, batch, self.prepare)

    def prepare(self, inputs: Mapping[str, Float32], outputs: Mapping[str, Float32]) -> Callable[[], object]:
        """A call on C-contiguous arrays, which must outlive it."""
        self.check_open()
        return _checked(partial(self.session.run_with_iobinding, bind_arrays(self.session, inputs, outputs)))

    def _close(self) -> None:
        self.session = None


def _checked(call: Callable[[], Any]) -> Callable[[], Any]:
    """The call, with what ONNX Runtime raises in it as ProviderError."""

    def checked() -> Any:
        try:
            return call()
        except Exception as error:  # ONNX Runtime raises many unrelated classes
            raise ProviderError(f"ONNX Runtime failed: {_first_line(error)}") from None

    return checked


def bind_arrays(session: Any, inputs: Mapping[str, Float32], outputs: Mapping[str, Float32]) -> Any:
    """A binding of C-contiguous arrays, which must outlive it."""
    binding = session.io_binding()
    for name, array in inputs.items():
        binding.bind_input(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
    for name, array in outputs.items():
        binding.bind_output(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
    return binding


class OnnxRuntimeStepper(HostStepper):
    """The fused `step` graph on arrays of the host, bound once for each number of active slots."""

    def __init__(self, engine: OnnxRuntimeEngine, capacity: int = 8) -> None:
        super().__init__(engine.inputs, capacity)
        self._engine = engine

    def _prepare(self, active: int, feeds: dict[str, Float32], x_next: Float32) -> Callable[[], object]:
        return self._engine.prepare(feeds, {"x_next": x_next})


def _spec(node: Any) -> TensorSpec:
    dtype = {"tensor(float)": "float32", "tensor(int64)": "int64", "tensor(float16)": "float16"}.get(
        node.type, node.type
    )
    return TensorSpec(node.name, tuple(d if d is not None else "?" for d in node.shape), dtype)


def gpu_words(error: Exception) -> str:
    """What the GPU's part of ONNX Runtime says, without the places in its source and the name of this machine."""
    text = " ".join(str(error).split()).partition(" ; GPU=")[0]
    for mark in ("CUDA failure", "CUDNN failure", "CUBLAS failure", "[ONNXRuntimeError] :"):
        if mark in text:
            return text[text.index(mark) :][:300]
    return text[:300] or type(error).__name__


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
