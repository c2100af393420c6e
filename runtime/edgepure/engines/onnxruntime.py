"""ONNX Runtime as the engine: buffers bound once, no allocation in the loop, and no silent fallback.

ONNX Runtime runs on the CPU without an error when the provider that was asked for cannot start. Here the session is
asked what it really uses, and anything else than what was wanted is an error.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bundle.external_data import external_tensors
from ..errors import BundleError, ProviderError, import_fault, words_of
from ..machine.nvidia import Driver
from ..machine.shortage import shortage
from ..types import Float32
from .base import TensorSpec
from .host import HostEngine
from .kind import Kind, Opening, Probe
from .kinds import DEFAULT_PROVIDER, check_kernels, kind_of
from .tiny import EXPECTED, FEED, TINY_GRAPH

#: The log says nothing: it would print names from a stranger's graph as they are, and what it says is raised, too.
_SILENT = 4


def open_graph(opening: Opening) -> OnnxRuntimeEngine:
    """The engine of a row that ONNX Runtime runs on the CPU."""
    return OnnxRuntimeEngine(opening.path, opening.kind.provider, opening.threads, precision=opening.precision)


def import_onnxruntime() -> Any:
    """The onnxruntime module, or ProviderError with the line that installs it."""
    try:
        import onnxruntime

        _ = onnxruntime.InferenceSession, onnxruntime.__version__  # a folder left by an uninstallation has neither
    except Exception as error:  # a broken installation raises anything
        raise ProviderError(
            f"{import_fault('onnxruntime', error)}; install it with `pip install edgepure[cpu]`, "
            "or `pip install edgepure[cuda]` on an NVIDIA GPU",
            code="E-package-onnxruntime",
        ) from None
    if hasattr(onnxruntime, "disable_telemetry_events"):
        onnxruntime.disable_telemetry_events()  # where the program imported it before edgepure
    return onnxruntime


def require_provider(provider: str) -> str:
    """ONNX Runtime's name of a provider. Its own TensorRT provider is not among them: it builds engines inside the
    first request, and knows TensorRT 10 only; `edgepure.engines.tensorrt.engine` does it without.

    Raises:
        ProviderError: unknown, or not part of the installed ONNX Runtime; with the line that installs it.
    """
    ort = import_onnxruntime()
    wanted = kind_of(provider).execution_provider
    offered = list(ort.get_available_providers())
    if not wanted or wanted not in offered:
        raise ProviderError(
            f"provider {provider!r} is not part of the installed onnxruntime {ort.__version__} "
            f"(it has {', '.join(offered)}); install `edgepure[cuda]` for NVIDIA GPUs, or choose the "
            f"provider {DEFAULT_PROVIDER}",
            code="E-provider-missing",
        )
    return wanted


def check_graph(path: Path) -> None:
    """Raise BundleError for a graph that is not valid, by ONNX Runtime's word: nothing is optimised or computed. What
    it only has no kernels for is none of that, and neither are operators in bf16, which most opsets do not list: the
    variants for OpenVINO have them."""
    try:
        ort = import_onnxruntime()
    except ProviderError:
        return
    settings = ort.SessionOptions()
    settings.log_severity_level = _SILENT
    settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    settings.intra_op_num_threads = 1
    settings.add_session_config_entry("session.disable_prepacking", "1")
    try:
        ort.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    except Exception as error:
        if lack := shortage(error):
            raise lack from None
        unlisted = "Type Error: Type 'tensor(bfloat16)'" in str(error)
        if type(error).__name__ != "NotImplemented" and not unlisted and _own(error):
            raise BundleError(
                f"{path.name} is not a valid ONNX graph: {words_of(error)}; export the bundle again",
                code="E-bundle-graph-invalid",
            ) from None
        if not _own(error):
            raise


class OnnxRuntimeEngine(HostEngine):
    """One ONNX graph in one session."""

    def __init__(
        self,
        path: Path,
        provider: str = DEFAULT_PROVIDER,
        threads: int | None = None,
        *,
        precision: str = "fp32",
        options: Mapping[str, str] | None = None,
    ) -> None:
        """Open a graph.

        Args:
            path: the ``.onnx`` file; external data is looked up beside it.
            provider: one whose row names an execution provider of ONNX Runtime.
            threads: intra-op threads on the CPU; None lets ONNX Runtime choose (one per core).
            precision: of the heavy arithmetic in the graph, as the manifest says.
            options: options of ONNX Runtime's provider.

        Raises:
            ProviderError: unknown, not installed or not active, or it has no kernels for this precision.
            BundleError: the file is not an ONNX graph that this ONNX Runtime can run.
        """
        wanted, ort = require_provider(provider), import_onnxruntime()
        check_kernels(provider, precision)
        on_cpu = kind_of(provider).device == "cpu"
        settings = ort.SessionOptions()
        settings.log_severity_level = _SILENT
        # Processors without instructions for int8 products (VNNI) would let sums of two products saturate.
        settings.add_session_config_entry("session.x64quantprecision", "1")
        if on_cpu and precision == "fp8":
            # The extended optimisations move float8 tensors through operators that have no float8 kernel.
            settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        # Every graph has threads of its own: they spin between the operators of a call, where sleep would cost more
        # than a small operator, and sleep between calls, where they would keep the cores from the other graphs.
        settings.add_session_config_entry("session.force_spinning_stop", "1")
        if threads is not None:
            settings.intra_op_num_threads = threads
        shown = _show_weights(settings, path) if on_cpu else []
        try:
            # Left to itself, it answers a fault of the GPU, in any later call too, by going on with the CPU.
            self.session = ort.InferenceSession(
                str(path), settings, providers=[(wanted, dict(options or {}))], enable_fallback=0
            )
        except Exception as error:  # ONNX Runtime raises many unrelated classes
            if on_cpu and (lack := shortage(error)):
                raise lack from None
            if not on_cpu:
                raise ProviderError(
                    f"provider {provider!r} cannot run {path.name}: {self._why_inactive(ort) or gpu_words(error)}; "
                    "`edgepure doctor` shows what works here",
                    code="E-provider-inactive",
                ) from None
            raise BundleError(
                f"{path.name} cannot be run by onnxruntime {ort.__version__}: {words_of(error)}",
                code="E-engine-refuses",
            ) from None
        del shown  # it has what it needs
        active = list(self.session.get_providers())
        if not active or active[0] != wanted:
            raise ProviderError(
                f"asked for provider {provider!r}, but ONNX Runtime started {', '.join(active) or 'nothing'}: "
                f"{self._why_inactive(ort) or '`edgepure doctor` shows what works here'}. Choose the "
                f"provider {DEFAULT_PROVIDER} to run on the CPU on purpose",
                code="E-provider-inactive",
            )
        self.provider = provider
        self.inputs = {i.name: _spec(i) for i in self.session.get_inputs()}
        self.outputs = {o.name: _spec(o) for o in self.session.get_outputs()}

    def _why_inactive(self, ort: Any) -> str:
        """What the provider lacks, as far as that can be found out without it; empty if nothing is missing."""
        return ""

    def _run(self, feeds: dict[str, NDArray[np.generic]]) -> dict[str, Float32]:
        values = _checked(partial(self.session.run, list(self.outputs), feeds))()
        return dict(zip(self.outputs, values, strict=True))

    def prepare(
        self, inputs: Mapping[str, Float32], outputs: Mapping[str, Float32], full: bool = False
    ) -> Callable[[], object]:
        self.check_open()
        return _checked(partial(self.session.run_with_iobinding, bind_arrays(self.session, inputs, outputs)))

    def _close(self) -> None:
        self.session = None


def _show_weights(settings: Any, path: Path) -> list[mmap.mmap]:
    """Show ONNX Runtime the weights beside a graph, to be kept until the session is there. It copies what it needs; a
    file that it maps itself ends the process (SIGBUS) when somebody cuts it short. Older ones map."""
    show: Any = getattr(settings, "add_external_initializers_from_files_in_memory", None)
    try:
        names = sorted({tensor.location for tensor in external_tensors(path)}) if show else []
        shown = [_mapped(path.parent / name) for name in names]
    except (BundleError, OSError, ValueError):  # ONNX Runtime says what is wrong
        return []
    if shown:
        show(names, shown, list(map(len, shown)))
    return shown


def _mapped(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _checked(call: Callable[[], Any]) -> Callable[[], Any]:
    """The call, with what ONNX Runtime raises in it as one of our errors: on the CPU the graph is at fault."""

    def checked() -> Any:
        try:
            return call()
        except Exception as error:
            if not _own(error):
                raise
            raise shortage(error) or BundleError(
                f"ONNX Runtime cannot run the graph: {words_of(error)}; export the bundle again", code="E-graph-run"
            ) from None

    return checked


def _own(error: Exception) -> bool:
    """Whether ONNX Runtime raised it, and not a handler of a signal that came meanwhile."""
    return type(error).__module__.startswith("onnxruntime") or type(error) in (RuntimeError, ValueError, MemoryError)


def bind_arrays(session: Any, inputs: Mapping[str, Float32], outputs: Mapping[str, Float32]) -> Any:
    """A binding of C-contiguous arrays, which must outlive it."""
    binding = session.io_binding()
    for name, array in inputs.items():
        binding.bind_input(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
    for name, array in outputs.items():
        binding.bind_output(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
    return binding


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


def _nothing(ort: Any) -> str:
    return ""


def probe(
    kind: Kind,
    driver: Driver,
    prepare: Callable[[Any], object] = _nothing,
    why_inactive: Callable[[Any], str] = _nothing,
) -> Probe:
    """Run one node on the provider of a row.

    ``prepare``: called with the module before a session is made. ``why_inactive``: what the provider lacks, as far as
    that can be found out without it.
    """
    try:
        ort = import_onnxruntime()
    except ProviderError as error:
        return Probe(kind.version(), False, detail=str(error).partition("; install")[0])  # that line follows
    name, version = kind.execution_provider, str(ort.__version__)
    if name not in ort.get_available_providers():
        return Probe(version, False, detail=f"not part of the installed onnxruntime {version}")
    options = ort.SessionOptions()
    options.log_severity_level = _SILENT
    options.intra_op_num_threads = 1
    try:
        prepare(ort)
        session = ort.InferenceSession(TINY_GRAPH, options, providers=[name], enable_fallback=0)
        active = list(session.get_providers())
        if not active or active[0] != name:
            why = f" ({why})" if (why := why_inactive(ort)) else ""
            took = ", ".join(active) or "nothing"
            return Probe(version, False, detail=f"did not start{why}, ONNX Runtime took {took} instead")
        (result,) = session.run(None, FEED)
    except Exception as error:  # ONNX Runtime raises many unrelated classes
        return Probe(version, False, detail=f"failed: {gpu_words(error)[:200]}")
    if not np.array_equal(result, EXPECTED):
        return Probe(version, False, detail=f"computed {result.tolist()} for 1 + 1")
    why = why_inactive(ort)
    return Probe(version, not why, detail=why)
