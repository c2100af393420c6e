"""Engines that come to ONNX Runtime as plugins: a package with a library, and no code of ours for what it computes.

A plugin's package says where its library lies (``get_library_path``) and what its execution provider is called
(``get_ep_name``); ONNX Runtime 1.23 and later loads it. The plugin then offers the devices that it has found, and a
session is given one of them. What would be left to the CPU is refused, and so is a plugin that finds no device.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from ..errors import ProviderError, import_fault, words_of
from ..machine.install import Installation
from ..machine.nvidia import Driver
from .kind import Kind, Opening, Probe
from .kinds import check_kernels
from .onnxruntime import _SILENT, OnnxRuntimeEngine, _spec, import_onnxruntime
from .tiny import EXPECTED, FEED, TINY_GRAPH

OPENVINO = Kind(
    provider="plugin-openvino",
    title="OpenVINO in ONNX Runtime",
    opens="edgepure.engines.plugin:open_graph",
    note="on Intel processors",
    packages=("onnxruntime-ep-openvino",),
    module="onnxruntime_ep_openvino",
    install=Installation("optional, for Intel processors: pip install onnxruntime-ep-openvino", jetson=""),
    probes="edgepure.engines.plugin:probe",
)
TENSORRT_RTX = Kind(
    provider="plugin-tensorrt-rtx",
    title="TensorRT for RTX in ONNX Runtime",
    opens="edgepure.engines.plugin:open_graph",
    device="gpu",
    packages=("onnxruntime-ep-nv-tensorrt-rtx",),
    module="onnxruntime_ep_nv_tensorrt_rtx",
    install=Installation(
        "optional, without building engines: pip install onnxruntime-ep-nv-tensorrt-rtx", jetson="", gpu=True
    ),
    probes="edgepure.engines.plugin:probe",
)
#: Providers whose libraries this process has loaded, and the names of their execution providers.
_registered: dict[str, str] = {}


def open_graph(opening: Opening) -> PluginEngine:
    """The engine of a row whose module is a plugin."""
    check_kernels(opening.kind.provider, opening.precision)
    return PluginEngine(opening.path, opening.kind, opening.threads)


class PluginEngine(OnnxRuntimeEngine):
    """One ONNX graph in one session on a device of a plugin."""

    def __init__(self, path: Path, kind: Kind, threads: int | None = None) -> None:
        """Open a graph.

        Raises:
            ProviderError: the plugin is not installed, cannot be loaded, finds no device here, or would leave a part of
                the graph to the CPU.
        """
        ort = import_onnxruntime()
        self.session = _session(ort, kind, str(path), threads)
        self.provider = kind.provider
        self.inputs = {i.name: _spec(i) for i in self.session.get_inputs()}
        self.outputs = {o.name: _spec(o) for o in self.session.get_outputs()}


def _session(ort: Any, kind: Kind, model: str | bytes, threads: int | None) -> Any:
    device = _device(ort, kind)
    options = ort.SessionOptions()
    options.log_severity_level = _SILENT
    # Without this, ONNX Runtime's own kernels would take what the plugin has none for, and nobody would be told.
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    if threads is not None:
        options.intra_op_num_threads = threads
    options.add_provider_for_devices([device], {})
    try:
        session = ort.InferenceSession(model, options)
    except Exception as error:  # ONNX Runtime raises many unrelated classes
        raise ProviderError(
            f"provider {kind.provider!r} cannot run the graph: {words_of(error)}", code="E-provider-inactive"
        ) from None
    active = list(session.get_providers())
    if not active or active[0] != device.ep_name:
        raise ProviderError(
            f"asked for provider {kind.provider!r}, but ONNX Runtime started {', '.join(active) or 'nothing'}",
            code="E-provider-inactive",
        )
    return session


def _device(ort: Any, kind: Kind) -> Any:
    """The plugin's first device of the row's sort.

    Raises:
        ProviderError: the package is missing, its library cannot be loaded, or it finds no such device.
    """
    name = _register(ort, kind)
    found = [device for device in ort.get_ep_devices() if device.ep_name == name]
    fitting = [device for device in found if device.device.type.name.lower() == kind.device]
    if not fitting:
        others = ", ".join(sorted({device.device.type.name for device in found})) or "none at all"
        raise ProviderError(
            f"provider {kind.provider!r}: the plugin finds no {kind.device.upper()} here that it can use (it offers: "
            f"{others})",
            code="E-provider-inactive",
        )
    return fitting[0]


def _register(ort: Any, kind: Kind) -> str:
    """Load a plugin's library into ONNX Runtime, once in a process; the name of its execution provider."""
    if kind.provider in _registered:
        return _registered[kind.provider]
    if not hasattr(ort, "register_execution_provider_library"):
        raise ProviderError(
            f"provider {kind.provider!r} needs ONNX Runtime 1.23 or later, this is {ort.__version__}",
            code="E-provider-missing",
        )
    try:
        plugin = import_module(kind.module)
        name, library = str(plugin.get_ep_name()), str(plugin.get_library_path())
    except Exception as error:  # somebody else's module raises anything
        line = kind.install.line.rpartition(": ")[2]
        raise ProviderError(
            f"provider {kind.provider!r}: {import_fault(kind.module, error)}; install it with `{line}`",
            code="E-provider-missing",
        ) from None
    try:
        ort.register_execution_provider_library(kind.provider, library)
    except Exception as error:
        raise ProviderError(
            f"provider {kind.provider!r}: {words_of(error)}. A plugin needs its drivers, and fits the versions "
            "of ONNX Runtime that its makers name",
            code="E-provider-inactive",
        ) from None
    _registered[kind.provider] = name
    return name


def probe(kind: Kind, driver: Driver) -> Probe:
    """Run one node on the plugin of a row."""
    version = kind.version()
    if version is None:
        return Probe(None, False, detail="not installed")
    try:
        session = _session(import_onnxruntime(), kind, TINY_GRAPH, 1)
        (result,) = session.run(None, FEED)
    except Exception as error:
        why = str(error).removeprefix(f"provider {kind.provider!r}: ")
        return Probe(version, False, detail=why.rpartition(" with error: ")[2][:200], installable=False)
    right = bool((result == EXPECTED).all())
    return Probe(version, right, detail="" if right else f"computed {result.tolist()} for 1 + 1")
