"""OpenVINO as the engine: on processors with integer and bf16 matrix units it is the fastest one, see docs/openvino.md.

The types in the graph are what is computed. OpenVINO's own bf16 mode is not used: it rounds the timestep, too, so that
the network is told 1000 when it should be told 999.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError, EdgepureError, ProviderError, import_fault
from ..machine.nvidia import Driver
from ..machine.processor import cpu_features, usable_cores
from ..machine.shortage import shortage
from ..types import Float32
from .base import TensorSpec
from .host import HostEngine
from .kind import Kind, Opening, Probe
from .kinds import check_kernels
from .onnxruntime import check_graph
from .tiny import EXPECTED, FEED, TINY_GRAPH

#: A full batch is divided among streams that run side by side, with at least so many images each: less and the
#: weights are read too often.
STREAM_IMAGES = 4
_TELEMETRY = "openvino_telemetry"
#: CPU features that multiply integers of 8 bits. OpenVINO says that it runs int8 on every processor.
_INT8 = {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"}


def open_graph(opening: Opening) -> OpenVinoEngine:
    """The engine of OpenVINO's row.

    OpenVINO ends the process over some graphs that are not valid. Where ONNX Runtime is installed, too, it looks first.
    """
    if importlib.util.find_spec("onnxruntime") is not None:
        check_graph(opening.path)
    return OpenVinoEngine(opening.path, opening.threads, precision=opening.precision)


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

        _ = openvino.Core, openvino.Tensor  # a folder left behind by an uninstallation has neither
    except Exception as error:  # a broken installation raises anything
        raise ProviderError(
            f"{import_fault('openvino', error)}; install it with `pip install edgepure[openvino]`",
            code="E-package-openvino",
        ) from None
    finally:
        if hidden:
            sys.modules.pop(_TELEMETRY, None)
    return openvino


class OpenVinoEngine(HostEngine):
    """One ONNX graph on the CPU.

    OpenVINO is faster with a batch size that it knows. So a batch of one image, and a full one of the stepper, are
    compiled for their size, and all others for any; each when it is first used, which takes about a second. If it
    cannot compile a graph for any size, the others run image by image.

    Calls may be made from several threads: the compiled graphs are shared, the requests are not.
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
        check_kernels("openvino", precision)
        self._openvino = import_openvino()
        self._version = self._openvino.__version__.partition("-")[0]
        self._core = self._openvino.Core()
        onnx = self._openvino.frontend.FrontEndManager().load_by_framework("onnx")  # and no other format is tried
        try:
            self._model = onnx.convert(onnx.load(str(path), True))  # the weights stay in the file till they are used
            if not self._model.outputs:
                raise ValueError("it has no outputs")
        except Exception as error:  # OpenVINO raises many unrelated classes
            raise shortage(error) or BundleError(
                f"{path.name} cannot be run by openvino {self._version}: {reason(error)}", code="E-engine-refuses"
            ) from None
        self._file = path.name
        self._options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "ENABLE_CPU_PINNING": False}
        if threads is not None:
            self._options["INFERENCE_NUM_THREADS"] = threads
        if precision == "int8" and not _int8_units():
            # Its int8 kernels would let sums of two products saturate; without them it computes the same in fp32.
            self._options["LP_TRANSFORMS_MODE"] = "OFF"
        self._compiled: dict[int | None, Any] = {}
        self._lock = Lock()
        self.inputs = {port.any_name: _spec(port) for port in self._model.inputs}
        self.outputs = {port.any_name: _spec(port) for port in self._model.outputs}

    def prepare(
        self, inputs: Mapping[str, Float32], outputs: Mapping[str, Float32], full: bool = False
    ) -> Callable[[], object]:
        requests = self._requests({**inputs, **outputs}, full, shared=True)
        return partial(_infer, requests)

    def _close(self) -> None:
        self._compiled.clear()
        self._model = self._core = None

    def _run(self, feeds: dict[str, NDArray[np.generic]]) -> dict[str, Float32]:
        requests = self._requests(feeds, full=False, shared=False)  # copies, because arrays may be read-only
        _infer(requests)
        return {name: np.concatenate([request.get_tensor(name).data for request in requests]) for name in self.outputs}

    def _requests(self, arrays: Mapping[str, NDArray[np.generic]], full: bool, shared: bool) -> list[Any]:
        """Requests, for equal parts of a batch, on these arrays or on copies of them."""
        self.check_open()
        batch = len(next(iter(arrays.values())))
        compiled, size = self._compiled_for(batch, full)
        requests = []
        for start in range(0, batch, size):
            try:
                request = compiled.create_infer_request()
                for name, array in arrays.items():
                    request.set_tensor(name, self._openvino.Tensor(array[start : start + size], shared_memory=shared))
            except RuntimeError as error:  # an input that was folded away, or a shape that cannot be
                raise _graph_fault(error) from None
            requests.append(request)
        return requests

    def _compiled_for(self, batch: int, full: bool) -> tuple[Any, int]:
        """A compiled graph, and how many images of a batch each of its calls takes."""
        with self._lock:
            if not full and batch > 1:
                if None not in self._compiled:
                    try:
                        self._compiled[None] = self._compile(None, 1)
                    except BundleError:
                        self._compiled[None] = None
                if self._compiled[None] is not None:
                    return self._compiled[None], batch
                batch = 1
            streams = self._streams(batch)
            if batch not in self._compiled:
                self._compiled[batch] = self._compile(batch // streams, streams)
            return self._compiled[batch], batch // streams

    def _compile(self, size: int | None, streams: int) -> Any:
        """The graph for calls on so many images; None: on any number."""
        model = self._model
        try:
            if size is not None:
                model = model.clone()
                model.reshape({name: [size, *spec.shape[1:]] for name, spec in self.inputs.items()})
            return self._core.compile_model(model, "CPU", {**self._options, "NUM_STREAMS": streams})
        except RuntimeError as error:
            raise shortage(error) or BundleError(
                f"{self._file} cannot be compiled by openvino {self._version}: {reason(error)}; "
                "export the bundle again, or choose the provider cpu",
                code="E-engine-compile",
            ) from None

    def _streams(self, batch: int) -> int:
        """Into how many equal parts a full batch is divided."""
        most = min(self._options.get("INFERENCE_NUM_THREADS") or usable_cores(), batch // STREAM_IMAGES)
        return next((count for count in range(most, 1, -1) if batch % count == 0), 1)


def _spec(port: Any) -> TensorSpec:
    shape = tuple("batch" if length.is_dynamic else length.get_length() for length in port.partial_shape)
    dtype = {"f32": "float32", "i64": "int64", "f16": "float16"}.get(port.element_type.to_string(), "")
    return TensorSpec(port.any_name, shape, dtype or str(port.element_type))


def _infer(requests: list[Any]) -> None:
    """Run requests side by side. Whatever happens, Ctrl-C included, none is running any more when this ends: they write
    to arrays of the caller.

    Even a single one is started asynchronously: on one thread, OpenVINO's synchronous call keeps faults to itself.
    """
    try:
        for request in requests:
            request.start_async()
        for request in requests:
            request.wait()
    except BaseException as error:
        for request in requests:
            with suppress(RuntimeError):
                request.wait()
        if type(error) is not RuntimeError:  # a handler of a signal that came meanwhile raises what it likes
            raise
        raise _graph_fault(error) from None


def _graph_fault(error: Exception) -> EdgepureError:
    return shortage(error) or BundleError(
        f"OpenVINO cannot run the graph: {reason(error)}; export the bundle again", code="E-graph-run"
    )


def _int8_units() -> bool:
    """Whether the processor multiplies integers of 8 bits without saturation; True where that is not known."""
    features = cpu_features()
    return not features or bool(_INT8.intersection(features))


def reason(error: Exception) -> str:
    """What OpenVINO says, without the places in its source code: its last line."""
    lines = [re.sub(r" failed at \S+", " failed", line).strip(" .:-") for line in str(error).splitlines()]
    return next((line for line in reversed(lines) if line), type(error).__name__)[:300]


def probe(kind: Kind, driver: Driver) -> Probe:
    """Run one node on the CPU; says what the processor has for the variants that OpenVINO is used for."""
    if importlib.util.find_spec(kind.module) is None:
        return Probe(None, False, detail="not installed")
    version = kind.version() or "unknown"
    try:
        core = import_openvino().Core()
        compiled = core.compile_model(core.read_model(TINY_GRAPH), "CPU", {"INFERENCE_NUM_THREADS": 1})
        result = compiled(FEED)[0]
        capabilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    except ProviderError as error:
        return Probe(version, False, detail=str(error).partition("; install")[0])  # that line follows
    except Exception as error:  # a broken installation raises anything
        return Probe(version, False, detail=reason(error)[:200], installable=False)
    if not np.array_equal(result, EXPECTED):
        return Probe(version, False, detail=f"computed {result.tolist()} for 1 + 1", installable=False)
    features = cpu_features()  # none where the system does not list them: then nothing is said of int8
    units = [*(["bf16"] if "BF16" in capabilities else []), *(["int8"] if features and _int8_units() else [])]
    words = " and ".join(units) or ("neither bf16 nor int8" if features else "no bf16")
    return Probe(version, True, detail=f"{words} in hardware")
