"""Puts the stand-ins of CUDA, TensorRT and ONNX Runtime's CUDA provider where edgepure looks for the real ones."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import fake_tensorrt
import numpy as np
import onnxruntime
import pytest
from fake_cuda import Machine, Misuse

import edgepure
from edgepure.engines.gpu import cuda
from edgepure.engines.tensorrt import engine_files as tensorrt_plans
from edgepure.machine import jetson, nvidia

GPU = nvidia.Gpu("Made-up GPU", "8.9", 8 << 30)


def plug_in(
    patch: pytest.MonkeyPatch,
    machine: Machine,
    *,
    version: str = "11.4.0.106",
    rtx: bool = False,
    gpu: nvidia.Gpu = GPU,
    module: jetson.Jetson | None = None,
) -> Any:
    """A machine with this GPU, and with one TensorRT. Returns the module of TensorRT."""
    for name in ("runtime", "driver", "nvrtc"):
        patch.setitem(sys.modules, f"cuda.bindings.{name}", getattr(machine, name))
    patch.setattr(nvidia, "find", lambda: nvidia.Driver("580.95", "13.0", (gpu,)))
    patch.setattr(jetson, "find", lambda: module)
    unplug()
    fake = fake_tensorrt.make_module(version, machine, rtx=rtx)
    patch.setitem(sys.modules, "tensorrt", None if rtx else fake)
    patch.setitem(sys.modules, "tensorrt_rtx", fake if rtx else None)
    return fake


def unplug() -> None:
    """Forget what was asked of the machine before."""
    for asked in (cuda.bindings, cuda.driver, tensorrt_plans._l4t):
        asked.cache_clear()


def unplug_driver(patch: pytest.MonkeyPatch, fault: str) -> None:
    """The same machine without its driver."""
    patch.setattr(nvidia, "find", lambda: nvidia.Driver(fault=fault))
    unplug()


def real_rtx() -> Any:
    """The real TensorRT for RTX; skips the test where it is not installed."""
    return pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx (pip install edgepure[rtx])")


# ---- ONNX Runtime on CUDA --------------------------------------------------------------------------------------------


class CudaBinding:
    """An IOBinding of device addresses."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.inputs: dict[str, tuple[tuple[int, ...], int]] = {}
        self.outputs: dict[str, tuple[tuple[int, ...], int]] = {}

    def bind_input(
        self, name: str, device_type: str, device_id: int, element_type: Any, shape: tuple[int, ...], buffer_ptr: int
    ) -> None:
        self.inputs[name] = self._checked(device_type, element_type, shape, buffer_ptr)

    def bind_output(
        self,
        name: str,
        device_type: str = "cpu",
        device_id: int = 0,
        element_type: Any = None,
        shape: tuple[int, ...] | None = None,
        buffer_ptr: int | None = None,
    ) -> None:
        assert shape is not None and buffer_ptr is not None
        self.outputs[name] = self._checked(device_type, element_type, shape, buffer_ptr)

    def _checked(
        self, device_type: str, element_type: Any, shape: tuple[int, ...], address: int
    ) -> tuple[tuple[int, ...], int]:
        if device_type != "cuda" or element_type is not np.float32:
            raise Misuse(f"bound to {device_type}: it would cross the bus")
        self._machine.on_device(address, int(np.prod(shape)) * 4)
        return tuple(shape), address


class CudaSession:
    """An InferenceSession on CUDA: a stream of the caller, and graphs that must not change their addresses."""

    def __init__(self, machine: Machine, real: type, path: str, settings: Any, options: dict[str, str]) -> None:
        self._machine, self._options = machine, options
        self._stream = int(options["user_compute_stream"])
        machine.stream(self._stream)
        self._session = real(path, settings, providers=["CPUExecutionProvider"])
        self.graphs: dict[str, CudaBinding] = {}

    def get_providers(self) -> list[str]:
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    def get_inputs(self) -> Any:
        return self._session.get_inputs()

    def get_outputs(self) -> Any:
        return self._session.get_outputs()

    def io_binding(self) -> CudaBinding:
        return CudaBinding(self._machine)

    def run(self, output_names: Any, input_feed: Any, run_options: Any = None) -> Any:
        if self._options["enable_cuda_graph"] == "1":
            assert run_options is not None and run_options.get_run_config_entry("gpu_graph_id") == "-1"
        return self._session.run(output_names, input_feed)

    def run_with_iobinding(self, iobinding: CudaBinding, run_options: Any = None) -> None:
        if self._options["enable_cuda_graph"] == "1":
            number = run_options.get_run_config_entry("gpu_graph_id")
            if self.graphs.setdefault(number, iobinding) is not iobinding:
                raise Misuse("a captured graph with other addresses")

        def work() -> None:
            feeds = {
                name: self._machine.on_device(at, int(np.prod(shape)) * 4).view(np.float32).reshape(shape).copy()
                for name, (shape, at) in iobinding.inputs.items()
            }
            names = list(iobinding.outputs)
            for name, value in zip(names, self._session.run(names, feeds), strict=True):
                shape, at = iobinding.outputs[name]
                assert value.shape == shape
                self._machine.on_device(at, value.nbytes).view(np.float32)[:] = value.reshape(-1)

        self._machine.put(self._stream, work)
        if run_options is None or run_options.get_run_config_entry("disable_synchronize_execution_providers") != "1":
            self._machine.drain(self._machine.stream(self._stream))


def plug_in_onnxruntime(patch: pytest.MonkeyPatch, machine: Machine) -> list[CudaSession]:
    """ONNX Runtime with a CUDA provider that works. Returns the sessions that are made on it."""
    made: list[CudaSession] = []
    real = onnxruntime.InferenceSession

    def session(path: str, settings: Any, providers: list[Any], enable_fallback: int = 1) -> Any:
        if isinstance(providers[0], str):  # without options, as the stand-in of TensorRT asks for the CPU
            return real(path, settings, providers=providers)
        name, options = providers[0]
        if name != "CUDAExecutionProvider":
            return real(path, settings, providers=providers)
        if enable_fallback:
            raise Misuse("a call that fails on the GPU would be repeated on the CPU, silently")
        made.append(CudaSession(machine, real, path, settings, options))
        return made[-1]

    patch.setattr(onnxruntime, "InferenceSession", session)
    patch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    if hasattr(onnxruntime, "preload_dlls"):
        patch.setattr(onnxruntime, "preload_dlls", lambda **_: None)
    return made


def copy_of_digits(folder: Path) -> Path:
    """A copy of the digits bundle, to build engines in."""
    source = Path(edgepure.__file__).parent / "demo" / "data" / "digits"
    return Path(shutil.copytree(source, folder / "digits", ignore=lambda *_: {"engines"}))
