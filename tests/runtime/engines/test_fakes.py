"""The stand-ins have the interface of the real modules, and notice what the real ones would not survive."""

from __future__ import annotations

import gc
import inspect
import re
from typing import Any

import fake_cuda
import fake_tensorrt
import numpy as np
import pytest
from cuda.bindings import driver, nvrtc, runtime
from fake_cuda import Machine, Misuse
from gpu_stand_in import real_rtx


def public(kind: type) -> dict[str, Any]:
    return {name: value for name, value in vars(kind).items() if not name.startswith("_")}


def names_of(function: Any) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name != "self"]


@pytest.mark.parametrize(
    ("fake", "real"), [(fake_cuda.Runtime, runtime), (fake_cuda.Driver, driver), (fake_cuda.NoNvrtc, nvrtc)]
)
def test_every_cuda_function_takes_what_the_real_one_takes(fake: type, real: Any) -> None:
    for name, value in public(fake).items():
        assert hasattr(real, name), name
        if inspect.isfunction(value) and fake is not fake_cuda.NoNvrtc:
            assert names_of(value) == names_of(getattr(real, name)), name
    for name in fake_cuda.CONSTANTS:
        assert hasattr(runtime, name)


def documented(function: Any) -> list[list[str]]:
    """The parameters of each overload of a function of pybind11, from the first lines of its documentation."""
    found = re.findall(r"^(?:\d+\. )?\w+\((self: [^)]*(?:\([^)]*\))*[^)]*)\) ->", function.__doc__ or "", re.MULTILINE)
    return [re.findall(r"(?:^|, )(\w+): ", text)[1:] for text in found]


@pytest.mark.parametrize("kind", [*fake_tensorrt.CLASSES, *fake_tensorrt.RTX_CLASSES], ids=lambda kind: kind.__name__)
def test_every_tensorrt_class_has_the_methods_of_the_real_one(kind: type) -> None:
    """Compared with TensorRT for RTX, whose interface is that of TensorRT 11 and more."""
    real = getattr(real_rtx(), kind.__name__)
    helpers = {"REFUSED", "fails", "steps", "pause", "ACTIVATIONS", "module"}
    for name, value in public(kind).items():
        if name in helpers:
            continue
        assert hasattr(real, name), f"{kind.__name__}.{name}"
        if inspect.isfunction(value):
            assert names_of(value) in documented(getattr(real, name)), f"{kind.__name__}.{name}"
        elif isinstance(value, property):
            assert isinstance(inspect.getattr_static(real, name), property), f"{kind.__name__}.{name}"
    if kind.__init__ is not object.__init__ and kind.__name__ in ("Builder", "OnnxParser", "Runtime", "ILogger"):
        assert names_of(kind.__init__) in documented(real.__init__)


def test_the_attributes_that_the_code_sets_exist() -> None:
    trt = real_rtx()
    config = {"max_aux_streams", "progress_monitor", "num_compute_capabilities"}
    settings = {"cuda_graph_strategy", "dynamic_shapes_kernel_specialization_strategy"}
    for kind, names in ((trt.IBuilderConfig, config), (trt.IRuntimeConfig, settings)):
        assert all(isinstance(inspect.getattr_static(kind, name), property) for name in names)
    assert isinstance(inspect.getattr_static(trt.Runtime, "engine_host_code_allowed"), property)
    assert inspect.getattr_static(trt.IExecutionContext, "is_stream_capturable")


@pytest.mark.parametrize("kind", [*fake_tensorrt.ENUMS, *fake_tensorrt.RTX_ENUMS], ids=lambda kind: kind.__name__)
def test_every_enum_is_the_real_one(kind: Any) -> None:
    real = getattr(real_rtx(), kind.__name__).__members__
    assert {name: int(value) for name, value in kind.__members__.items()}.items() <= {
        name: int(value) for name, value in real.items()
    }.items()
    rtx = fake_tensorrt.make_module("1.7.1", None, rtx=True)
    for name in ("BuilderFlag", "NetworkDefinitionCreationFlag"):
        found = {key: int(value) for key, value in getattr(real_rtx(), name).__members__.items()}
        assert {k: int(v) for k, v in getattr(rtx, name).__members__.items()}.items() <= found.items()


def test_the_log_levels_are_the_real_ones() -> None:
    real, levels = real_rtx().ILogger, ("INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE")
    assert [int(getattr(real, name)) for name in levels] == [getattr(fake_tensorrt.ILogger, name) for name in levels]


# ---- strictness ------------------------------------------------------------------------------------------------------

HOST_TO_DEVICE = runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
DEVICE_TO_HOST = runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
def stream(machine: Machine) -> Any:
    return machine.runtime.cudaStreamCreateWithFlags(runtime.cudaStreamNonBlocking)[1]


def test_pointers_of_the_wrong_world(machine: Machine, stream: Any) -> None:
    array = np.zeros(4, np.float32)
    _, device = machine.runtime.cudaMalloc(16)
    with pytest.raises(Misuse, match="a host pointer"):
        machine.runtime.cudaMemcpyAsync(array.ctypes.data, array.ctypes.data, 16, HOST_TO_DEVICE, stream)
    with pytest.raises(Misuse, match="a device pointer as the host side"):
        machine.runtime.cudaMemcpyAsync(device, device, 16, HOST_TO_DEVICE, stream)
    with pytest.raises(Misuse, match="past the end"):
        machine.runtime.cudaMemcpyAsync(device + 4, array.ctypes.data, 16, HOST_TO_DEVICE, stream)
    machine.runtime.cudaFree(device)
    with pytest.raises(Misuse, match="freed or never allocated"):
        machine.runtime.cudaMemcpyAsync(device, array.ctypes.data, 16, HOST_TO_DEVICE, stream)
    with pytest.raises(Misuse, match="default stream"):
        machine.runtime.cudaStreamSynchronize(0)


def test_what_is_read_or_overwritten_too_early_is_nonsense(machine: Machine, stream: Any) -> None:
    _, device = machine.runtime.cudaMalloc(16)
    _, pointer = machine.runtime.cudaMallocHost(16)
    pinned = machine.pinned[pointer].view(np.float32)
    pinned[:] = 1.0
    machine.runtime.cudaMemcpyAsync(device, pointer, 16, HOST_TO_DEVICE, stream)
    pinned[:] = 2.0  # before the copy has happened
    machine.runtime.cudaStreamSynchronize(stream)
    assert (machine.device[device].view(np.float32) == 2.0).all()
    pinned[:] = 0.0
    machine.runtime.cudaMemcpyAsync(pointer, device, 16, DEVICE_TO_HOST, stream)
    assert np.isnan(pinned).all()
    machine.runtime.cudaStreamSynchronize(stream)
    assert (pinned == 2.0).all()


def test_capturing(machine: Machine, stream: Any) -> None:
    modes = runtime.cudaStreamCaptureMode
    with pytest.raises(Misuse, match="other threads"):
        machine.runtime.cudaStreamBeginCapture(stream, modes.cudaStreamCaptureModeGlobal)
    machine.runtime.cudaStreamBeginCapture(stream, modes.cudaStreamCaptureModeThreadLocal)
    assert machine.runtime.cudaMalloc(16)[0] == runtime.cudaError_t.cudaErrorStreamCaptureUnsupported
    error, graph = machine.runtime.cudaStreamEndCapture(stream)
    assert error == runtime.cudaError_t.cudaErrorStreamCaptureInvalidated and graph is None


def test_a_network_that_does_not_outlive_its_parser(machine: Machine) -> None:
    module = fake_tensorrt.make_module("11.4.0", machine)

    class Log(module.ILogger):  # type: ignore[misc, name-defined]
        pass

    parser = module.OnnxParser(module.Builder(Log()).create_network(1), Log())
    gc.collect()
    with pytest.raises(Misuse, match="given back too early"):
        parser.parse_from_file("any.onnx")


def test_the_numbers_of_flags_moved_between_versions(machine: Machine) -> None:
    old, new = (fake_tensorrt.make_module(version, machine) for version in ("10.3.0", "11.4.0"))
    assert int(old.NetworkDefinitionCreationFlag.STRONGLY_TYPED) == 1
    assert int(new.NetworkDefinitionCreationFlag.STRONGLY_TYPED) == 0

    class Log(old.ILogger):  # type: ignore[misc, name-defined]
        pass

    with pytest.raises(Misuse, match="not strongly typed"):
        old.Builder(Log()).create_network(1 << int(new.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
