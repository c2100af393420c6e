"""CUDA's calls: errors in sentences, memory that is given back once, graphs that leave nothing behind."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from codes import raises_code
from cuda.bindings import runtime as real_runtime
from cuda_checks import FAULTS, check_failed_capture

from edgepure.engines.gpu import cuda


def test_without_the_bindings(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    cuda.bindings.cache_clear()
    with raises_code("E-package-cuda"):
        cuda.require_gpu("provider 'cuda'")


def test_an_error_of_cuda_is_a_sentence(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    code = gpu.machine.runtime.cudaError_t.cudaErrorInvalidValue
    monkeypatch.setattr(gpu.machine.runtime, "cudaSetDevice", lambda device: (code,))
    with raises_code("E-gpu"):
        cuda.start_cuda()


def test_memory_there_and_back(gpu: Any) -> None:
    stream = cuda.Stream()
    buffer, pinned = cuda.DeviceBuffer(48, stream), cuda.PinnedArray((3, 4))
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    cuda.to_host(pinned.array, buffer.pointer, stream)
    stream.wait()
    assert (pinned.array == 0.0).all()  # new memory is zero
    cuda.to_device(buffer.pointer, values, stream)
    cuda.on_device(buffer.pointer + 16, buffer.pointer, 16, stream)
    cuda.to_host(pinned.array, buffer.pointer, stream)
    event = cuda.Event()
    event.wait()  # nothing was recorded yet
    event.record(stream)
    event.wait()
    assert np.array_equal(pinned.array, values[[0, 0, 2]])
    with pytest.raises(ValueError, match="C-contiguous"):
        cuda.to_device(buffer.pointer, values.T, stream)
    for part in (buffer, pinned, event, stream):
        part.close()
        part.close()
    assert gpu.machine.leaks() == {}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_graph_that_cannot_be_captured_leaves_nothing(gpu: Any, fault: str) -> None:
    stream = cuda.Stream()
    check_failed_capture(stream, fault)
    stream.close()
    assert gpu.machine.leaks() == {}


class Recorder:
    """The stand-in's runtime, with everything that is called."""

    def __init__(self, runtime: Any) -> None:
        self._runtime, self.calls = runtime, list[tuple[str, tuple[Any, ...], tuple[Any, ...]]]()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._runtime, name)
        if not callable(found) or isinstance(found, type):
            return found

        def function(*arguments: Any) -> Any:
            results = found(*arguments)
            self.calls.append((name, arguments, results))
            return results

        return function


def test_the_real_bindings_take_these_arguments(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call of the module, made to the real ones: without a driver they fail, but not for their arguments."""
    if real_runtime.cudaGetDeviceCount()[0] == real_runtime.cudaError_t.cudaSuccess:
        pytest.skip("would be done to the GPU of this machine")
    recorder = Recorder(gpu.machine.runtime)
    monkeypatch.setattr(cuda.bindings(), "runtime", recorder)
    cuda.require_gpu("this test")
    cuda.start_cuda()
    test_memory_there_and_back(gpu)
    test_a_graph_that_cannot_be_captured_leaves_nothing(gpu, "allocation")
    test_a_graph_that_cannot_be_captured_leaves_nothing(gpu, "work")
    stream = cuda.Stream()
    with raises_code("E-gpu-memory"):
        cuda.DeviceBuffer(1 << 40, stream)
    stream.close()
    assert {name for name, _, _ in recorder.calls} == {n for n in vars(type(gpu.machine.runtime)) if n[:4] == "cuda"}
    for name, arguments, results in recorder.calls:
        found = getattr(real_runtime, name)(*arguments)
        assert isinstance(found[0], real_runtime.cudaError_t) and len(found) == len(results), name
