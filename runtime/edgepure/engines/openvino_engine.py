"""OpenVINO as the engine: on processors with integer and bf16 matrix units it is the fastest one, see docs/openvino.md.

The types in the graph are what is computed. OpenVINO's own bf16 mode is not used: it rounds the timestep, too, so that
the network is told 1000 when it should be told 999.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..cores import usable_cores
from ..errors import BundleError, EdgepureError, ProviderError
from .base import BoundCall, Engine, Float32, TensorSpec
from .host_stepper import HostCall, HostStepper

#: A full batch is divided among streams that run side by side, with at least so many images each: less and the
#: weights are read too often.
STREAM_IMAGES = 4
_TELEMETRY = "openvino_telemetry"


def import_openvino() -> Any:
    """The openvino module, or ProviderError with the line that installs it.

    Imported as usual it would report its use to its makers over the network; it does not when its telemetry package
    cannot be imported, so that one is hidden from it.
    """
    hidden = _TELEMETRY not in sys.modules and "openvino" not in sys.modules
    if hidden:
        sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
    try:
        import openvino
    except ImportError as error:
        raise ProviderError(
            f"openvino cannot be imported ({error}); install it with `pip install edgepure[openvino]`"
        ) from None
    finally:
        if hidden:
            del sys.modules[_TELEMETRY]
    return openvino


class OpenVinoEngine(Engine):
    """One ONNX graph on the CPU.

    OpenVINO is faster with a batch size that it knows. So a batch of one image, and a full one of the stepper, are
    compiled for their size, and all others for any; each when it is first used, which takes about a second.
    """

    provider = "openvino"

    def __init__(self, path: Path, threads: int | None = None, *, precision: str = "fp32") -> None:
        """Open a graph.

        Args:
            path: the ``.onnx`` file; external data is looked up beside it.
            threads: of one call; None lets OpenVINO choose (one per core).
            precision: of the heavy arithmetic in the graph, as the manifest says.

        Raises:
            ProviderError: OpenVINO is not installed, or has no kernels for this precision.
            BundleError: the file is not an ONNX graph that this OpenVINO can run.
        """
        if precision == "fp8":
            raise ProviderError(
                "the fp8 variant cannot run on OpenVINO: it has no float8 kernels for the CPU; choose precision fp32, "
                "bf16 or int8, or run it on TensorRT"
            )
        self._openvino = import_openvino()
        self._core = self._openvino.Core()
        try:
            self._model = self._core.read_model(path)
        except Exception as error:  # OpenVINO raises RuntimeError for everything
            raise BundleError(
                f"{path.name} cannot be run by openvino {self._openvino.__version__}: {_reason(error)}"
            ) from None
        self._file = path.name
        self._options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "ENABLE_CPU_PINNING": False}
        if threads is not None:
            self._options["INFERENCE_NUM_THREADS"] = threads
        self._requests: dict[int | None, list[Any]] = {}
        self._lock = Lock()
        self.inputs = {port.any_name: _spec(port) for port in self._model.inputs}
        self.outputs = {port.any_name: _spec(port) for port in self._model.outputs}

    def prepare(self, inputs: Mapping[str, Float32], outputs: Mapping[str, Float32], full: bool) -> Callable[[], None]:
        """A call on C-contiguous arrays, batch first, that must outlive it.

        ``full``: calls with this batch size are going to be many; it is worth being compiled for.
        """
        batch = len(next(iter(inputs.values())))
        requests = self._compiled(batch if full or batch == 1 else None)
        size = batch // len(requests)
        parts = [
            (
                request,
                {name: self._tensor(array[start : start + size]) for name, array in inputs.items()},
                {name: self._tensor(array[start : start + size]) for name, array in outputs.items()},
            )
            for request, start in zip(requests, range(0, batch, size), strict=True)
        ]
        return partial(self._call, parts)

    def bound(self, batch: int) -> BoundCall:
        return HostCall(self, batch, partial(self.prepare, full=True))

    def close(self) -> None:
        self._requests.clear()
        self._model = self._core = None

    def _run(self, feeds: dict[str, NDArray[np.generic]]) -> dict[str, Float32]:
        batch = len(next(iter(feeds.values())))
        with self._lock:
            (request,) = self._compiled(1 if batch == 1 else None)
            for name, array in feeds.items():
                request.set_tensor(name, self._tensor(array))
            self._infer(request)
            return {name: request.get_tensor(name).data.copy() for name in self.outputs}

    def _compiled(self, batch: int | None) -> list[Any]:
        """The requests that share a batch of this size; None: one request for any size."""
        if batch not in self._requests:
            self._requests[batch] = self._compile(batch, 1 if batch is None else self._streams(batch))
        return self._requests[batch]

    def _compile(self, batch: int | None, streams: int) -> list[Any]:
        model = self._model
        if batch is not None:
            model = model.clone()
            model.reshape({name: [batch // streams, *spec.shape[1:]] for name, spec in self.inputs.items()})
        try:
            compiled = self._core.compile_model(model, "CPU", {**self._options, "NUM_STREAMS": streams})
        except Exception as error:
            raise BundleError(
                f"{self._file} cannot be compiled by openvino {self._openvino.__version__}: {_reason(error)}"
            ) from None
        return [compiled.create_infer_request() for _ in range(streams)]

    def _streams(self, batch: int) -> int:
        """Into how many equal parts a full batch is divided."""
        most = min(self._options.get("INFERENCE_NUM_THREADS") or usable_cores(), batch // STREAM_IMAGES)
        return next((count for count in range(most, 1, -1) if batch % count == 0), 1)

    def _call(self, parts: list[tuple[Any, dict[str, Any], dict[str, Any]]]) -> None:
        for request, inputs, outputs in parts:
            for name, tensor in (*inputs.items(), *outputs.items()):
                request.set_tensor(name, tensor)
        if len(parts) == 1:
            self._infer(parts[0][0])
            return
        try:
            for request, _, _ in parts:
                request.start_async()
        finally:
            for request, _, _ in parts:
                self._wait(request)

    def _infer(self, request: Any) -> None:
        try:
            request.infer(share_outputs=True)
        except RuntimeError as error:
            raise _fault(error) from None

    def _wait(self, request: Any) -> None:
        try:
            request.wait()
        except RuntimeError as error:
            raise _fault(error) from None

    def _tensor(self, array: NDArray[np.generic]) -> Any:
        return self._openvino.Tensor(array, shared_memory=True)


class OpenVinoStepper(HostStepper):
    """The fused `step` graph on arrays of the host."""

    def __init__(self, engine: OpenVinoEngine, capacity: int = 8) -> None:
        super().__init__(engine.inputs, capacity)
        self._engine = engine

    def _prepare(self, active: int, feeds: dict[str, Float32], x_next: Float32) -> Callable[[], object]:
        return self._engine.prepare(feeds, {"x_next": x_next}, full=active == self.capacity)


def _spec(port: Any) -> TensorSpec:
    shape = tuple("batch" if length.is_dynamic else length.get_length() for length in port.partial_shape)
    dtype = {"f32": "float32", "i64": "int64", "f16": "float16"}.get(port.element_type.to_string(), "")
    return TensorSpec(port.any_name, shape, dtype or str(port.element_type))


def _fault(error: Exception) -> EdgepureError:
    return ProviderError(f"OpenVINO failed: {_reason(error)}; `edgepure doctor` shows what works here")


def _reason(error: Exception) -> str:
    """What OpenVINO says, without the places in its source code, in one line."""
    lines = [line.strip() for line in str(error).splitlines()]
    said = [line for line in lines if line and not line.startswith(("Exception from ", "While validating", "--"))]
    return (said[0] if said else str(error)).rstrip(".:")[:300]
