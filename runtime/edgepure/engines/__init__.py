"""Inference engines behind one small protocol. `open_engine` and `open_stepper` choose one by the provider's name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import BundleError, ProviderError
from .base import BoundCall, Engine, Stepper, TensorSpec

if TYPE_CHECKING:
    from pathlib import Path

    from ..bundle.bundle import Bundle
    from ..bundle.manifest import GraphEntry

__all__ = [
    "ON_CPU",
    "PROVIDERS",
    "BoundCall",
    "Engine",
    "Stepper",
    "TensorSpec",
    "open_engine",
    "open_graph",
    "open_stepper",
]

#: What may be asked for: ONNX Runtime and OpenVINO on the CPU, ONNX Runtime on CUDA, TensorRT, TensorRT for RTX.
PROVIDERS = ("cpu", "openvino", "cuda", "tensorrt", "tensorrt-rtx")
#: Those of them that compute on the CPU.
ON_CPU = ("cpu", "openvino")


def open_engine(
    bundle: Bundle, graph: str, provider: str = "cpu", *, precision: str = "fp32", threads: int | None = None
) -> Engine:
    """One graph of a bundle on an engine.

    Args:
        bundle: the bundle.
        graph, precision: which graph (see `Bundle.graph_path`).
        provider: one of `PROVIDERS`.
        threads: CPU threads of one call; None: one per core. For the CPU only.

    Raises:
        ProviderError: the provider is unknown, not installed, not active, or has no engine for this device; says what
            is missing. Nothing ever falls back to another provider.
        BundleError: the bundle has no such graph or variant, or the graph cannot be run.
    """
    if provider not in PROVIDERS:
        raise ProviderError(f"unknown provider {provider!r}; choose one of {', '.join(PROVIDERS)}")
    if provider in ("tensorrt", "tensorrt-rtx"):
        from .tensorrt.engine import TensorRTEngine

        return TensorRTEngine(bundle, graph, precision, product=provider)
    inside = {str(name): entry.precision for name, entry in bundle.manifest.graphs_in(precision).items()}
    path = bundle.graph_path(graph, precision)
    engine = open_graph(path, provider, precision=inside[graph], threads=threads)
    try:
        _check_signature(path.name, bundle.manifest.graphs[graph], engine)  # type: ignore[index]
    except BundleError:
        engine.close()
        raise
    return engine


def _check_signature(file: str, entry: GraphEntry, engine: Engine) -> None:
    """Raise BundleError if the graph has other inputs or outputs than its entry in the manifest.

    The sizes of outputs are compared when they are there: a graph need not say them.
    """
    for kind, listed, found in (("input", entry.inputs, engine.inputs), ("output", entry.outputs, engine.outputs)):
        wanted = {tensor.name: tensor for tensor in listed}
        if set(wanted) != set(found):
            raise BundleError(
                f"{file} has the {kind}s {', '.join(sorted(found)) or 'none'}, but the manifest lists "
                f"{', '.join(sorted(wanted))}; export the bundle again"
            )
        for name, spec in found.items():
            shape = wanted[name].shape
            same = len(spec.shape) == len(shape) and all(
                have == want or not isinstance(have, int) for have, want in zip(spec.shape, shape, strict=True)
            )
            if spec.dtype != wanted[name].dtype or (kind == "input" and not same):
                raise BundleError(
                    f"{kind} {name!r} of {file} is {spec.dtype} {list(spec.shape)}, but the manifest says "
                    f"{wanted[name].dtype} {list(shape)}; export the bundle again"
                )


def open_graph(path: Path, provider: str = "cpu", *, precision: str = "fp32", threads: int | None = None) -> Engine:
    """One ONNX file on ONNX Runtime or OpenVINO.

    Args:
        path: the file; external data is looked up beside it.
        provider: ``cpu``, ``openvino`` or ``cuda``; TensorRT runs engines that are built from a bundle.
        precision: of the heavy arithmetic in the graph.
        threads: as for `open_engine`.

    Raises:
        ProviderError, BundleError: as `open_engine`.
    """
    if provider == "cuda":
        from .gpu.onnxruntime import CudaEngine

        return CudaEngine(path, precision=precision)
    if provider == "openvino":
        from .openvino import OpenVinoEngine

        return OpenVinoEngine(path, threads, precision=precision)
    from .onnxruntime import OnnxRuntimeEngine

    return OnnxRuntimeEngine(path, provider, threads, precision=precision)


def open_stepper(engine: Engine, slots: int = 8) -> Stepper:
    """The slots of a step graph on the engine that `open_engine` gave for it, which must outlive them.

    ``slots``: images that share a call at most; TensorRT gives fewer if the engine was built for smaller batches.
    """
    engine.check_open()
    if engine.provider in ("tensorrt", "tensorrt-rtx"):
        from .tensorrt.engine import TensorRTEngine, TensorRTStepper

        assert isinstance(engine, TensorRTEngine)
        return TensorRTStepper(engine, slots)
    if engine.provider == "cuda":
        from .gpu.onnxruntime import CudaEngine, CudaStepper

        assert isinstance(engine, CudaEngine)
        return CudaStepper(engine, slots)
    if engine.provider == "openvino":
        from .openvino import OpenVinoEngine, OpenVinoStepper

        assert isinstance(engine, OpenVinoEngine)
        return OpenVinoStepper(engine, slots)
    from .onnxruntime import OnnxRuntimeEngine, OnnxRuntimeStepper

    assert isinstance(engine, OnnxRuntimeEngine)
    return OnnxRuntimeStepper(engine, slots)
