"""ONNX Runtime on CUDA, on the stand-in: the same results as the CPU, and the loop stays on the GPU."""

from __future__ import annotations

import ctypes
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
from codes import raises_code
from fake_cuda import Machine
from gpu_stand_in import plug_in, plug_in_onnxruntime, unplug, unplug_driver

import edgepure
from edgepure.bundle.bundle import Bundle
from edgepure.engines import open_engine
from edgepure.engines.gpu.onnxruntime import CudaEngine, CudaStepper, load_cuda_libraries, why_inactive
from edgepure.engines.onnxruntime import gpu_words
from edgepure.errors import EdgepureError, ProviderError
from edgepure.measure import bench
from edgepure.purify.inflight import InFlight, Job
from edgepure.rows.noise import SeededNoise

DIGITS = Path(edgepure.__file__).parent / "demo" / "data" / "digits"
PRESET = {"method": {"method": "uniform", "t_star": 60, "steps": 4, "sampler": "ddim"}}


def some_images(count: int) -> np.ndarray:
    return np.random.default_rng(3).random((count, 1, 16, 16), dtype=np.float32)


@pytest.mark.parametrize("lazy", [True, False])
def test_a_purification_is_that_of_the_cpu(monkeypatch: pytest.MonkeyPatch, lazy: bool) -> None:
    machine, images = Machine(lazy=lazy), some_images(5)
    with edgepure.load(DIGITS, threads=1) as purifier:
        expected = purifier.run(images, PRESET, votes=2, noise=5)
    plug_in(monkeypatch, machine)
    sessions = plug_in_onnxruntime(monkeypatch, machine)
    with edgepure.load(DIGITS, "cuda", slots=3) as purifier:
        found = purifier.run(images, PRESET, votes=2, noise=5)
        stepper = purifier.stepper("step")
        assert isinstance(stepper, CudaStepper) and stepper.noise_on_device and stepper.capacity == 3
        assert [s.batch for s in bench(purifier, PRESET, batches=(2,), repeats=1).speeds] == [2]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.image, other.image, atol=2e-5)
        assert one.label == other.label
    assert machine.leaks() == {}
    assert all(session._options["use_tf32"] == "0" for session in sessions)
    unplug()


@pytest.mark.parametrize("graphs", [False, True])
def test_the_loop_stays_on_the_gpu(monkeypatch: pytest.MonkeyPatch, graphs: bool) -> None:
    machine = Machine()
    plug_in(monkeypatch, machine)
    sessions = plug_in_onnxruntime(monkeypatch, machine)
    bundle = Bundle.open(DIGITS)
    engine = CudaEngine(bundle.graph_path("step"), graphs=graphs)
    stepper = CudaStepper(engine, 2)
    with edgepure.load(DIGITS, threads=1) as purifier:
        plan = purifier.plan(PRESET)
    refs = 2.0 * some_images(3) - 1.0
    source = SeededNoise(3)
    done: list[np.ndarray] = []

    def run() -> None:
        jobs = [Job(plan, source.for_image(plan, i, 0, None, refs[0].shape), ref) for i, ref in enumerate(refs)]
        InFlight(stepper).run(jobs, lambda job, x: done.append(x))  # type: ignore[func-returns-value]

    run()
    before = machine.allocations
    machine.copies.clear()
    run()
    assert machine.allocations == before
    assert np.array_equal(done[:3], done[3:])
    rows = [copy for copy in machine.copies if copy == ("HostToDevice", 2 * 22 * 4)]
    assert len(rows) == 2 * len(plan.rows)  # two images side by side, then the third
    others = [c for c in machine.copies if c not in rows and c[0] != "DeviceToDevice"]
    assert len(others) == 3 * len(refs) + len(refs)  # admissions and results
    # a graph for each number of slots and each direction between the two states
    assert len(sessions[0].graphs) == (4 if graphs else 0)
    if graphs:  # ordinary calls go past the graphs
        feeds = {name: np.zeros((1, *(int(n) for n in s.shape[1:])), np.float32) for name, s in engine.inputs.items()}
        assert engine.run(feeds)["x_next"].shape == (1, 1, 16, 16)
    stepper.close()
    engine.close()
    assert machine.leaks() == {}
    unplug()


def test_noise_from_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()
    plug_in(monkeypatch, machine)
    plug_in_onnxruntime(monkeypatch, machine)
    engine = open_engine(Bundle.open(DIGITS), "step", "cuda")
    assert isinstance(engine, CudaEngine)
    with raises_code("E-engine-option"):
        CudaStepper(engine, 2, noise="gpu")
    stepper = CudaStepper(engine, 2, noise="host")
    assert not stepper.noise_on_device and stepper.why_not == "asked for"
    stepper.close()
    other = engine.stepper(2)
    assert isinstance(other, CudaStepper) and other.noise_on_device
    other.close()
    engine.close()
    unplug()


def test_onnxruntime_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with raises_code("E-provider-missing"):
        edgepure.load(DIGITS, "cuda")


def test_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()
    plug_in(monkeypatch, machine)
    plug_in_onnxruntime(monkeypatch, machine)
    unplug_driver(monkeypatch, "no driver here")
    with raises_code("E-provider-device"):
        edgepure.load(DIGITS, "cuda")
    unplug()


def test_a_silent_fallback_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime takes the CPU and says nothing."""
    machine = Machine()
    plug_in(monkeypatch, machine)
    plug_in_onnxruntime(monkeypatch, machine)
    monkeypatch.setattr("gpu_stand_in.CudaSession.get_providers", lambda self: ["CPUExecutionProvider"])
    with raises_code("E-provider-inactive"):
        edgepure.load(DIGITS, "cuda")
    unplug()


def test_what_the_gpu_says_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()
    plug_in(monkeypatch, machine)
    plug_in_onnxruntime(monkeypatch, machine)
    said = (
        "/src/cuda_call.cc:154 std::conditional_t<THRW, void>\nCUDA failure 2: out of memory ; GPU=0 ; "
        "hostname=this-machine ; file=/src/cuda_execution_provider.cc"
    )

    def full(*_: Any, **__: Any) -> Any:
        raise RuntimeError(said)

    monkeypatch.setattr(onnxruntime, "InferenceSession", full)
    with raises_code("E-provider-inactive") as caught:
        open_engine(Bundle.open(DIGITS), "classifier", "cuda")
    assert "this-machine" not in str(caught.value) and "/src" not in str(caught.value)
    assert gpu_words(RuntimeError(said)) == "CUDA failure 2: out of memory"
    assert machine.leaks() == {}
    unplug()


@pytest.mark.parametrize(
    ("said", "code", "kind"),
    [
        ("bfc_arena.cc:376 Failed to allocate memory for requested buffer", "E-gpu-memory", EdgepureError),
        ("CUDA failure 700: an illegal memory access was encountered ; GPU=0", "E-engine-run", ProviderError),
        (
            "cuDNN is unavailable or disabled: dlopen failed for libcudnn.so",
            "E-package-cudnn",
            ProviderError,
        ),
    ],
)
def test_a_call_that_fails_is_an_error_and_no_call_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch, said: str, code: str, kind: type[Exception]
) -> None:
    machine = Machine()
    plug_in(monkeypatch, machine)
    plug_in_onnxruntime(monkeypatch, machine)

    def broken(self: Any, *_: Any) -> None:
        raise RuntimeError(said)

    engine = open_engine(Bundle.open(DIGITS), "classifier", "cuda")
    call = engine.bound(1)
    for name in ("run", "run_with_iobinding"):
        monkeypatch.setattr(f"gpu_stand_in.CudaSession.{name}", broken)
    for fails in (call, lambda: engine.run({"image": np.zeros((1, 1, 16, 16), np.float32)})):
        with raises_code(code) as caught:
            fails()
        assert type(caught.value) is kind
    call.close()
    engine.close()
    assert machine.leaks() == {}
    unplug()


def test_the_library_that_is_missing_is_named(tmp_path: Path) -> None:
    installed = SimpleNamespace(__file__=str(tmp_path / "__init__.py"))
    said = why_inactive(installed)
    assert "libonnxruntime_providers_cuda.so: cannot open shared object" in said and "[cuda,cudnn]" in said


def test_cudnn_is_looked_for_before_the_first_convolution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime (1.31) starts without it."""

    def load(name: str) -> None:
        if name.startswith("libcudnn"):
            raise OSError(f"{name}: cannot open shared object file: No such file or directory")

    monkeypatch.setattr(ctypes, "CDLL", load)
    said = why_inactive(SimpleNamespace(__file__=str(tmp_path / "__init__.py")))
    assert said.startswith("libcudnn.so.9: cannot open shared object") and "[cuda,cudnn]" in said


def test_libraries_are_found_wherever_python_packages_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """ONNX Runtime looks beside itself; it may be in another folder than CUDA's libraries."""
    places = [tmp_path / place / "nvidia" / part / "lib" for place, part in (("a", "cu13"), ("b", "cudnn"))]
    for place in places:
        place.mkdir(parents=True)
        monkeypatch.syspath_prepend(str(place.parents[2]))
    asked: list[str | None] = []

    def preload_dlls(directory: str | None = None) -> None:
        asked.append(directory)
        print(f"not in {directory or 'any place'}")

    load_cuda_libraries(SimpleNamespace(preload_dlls=preload_dlls))
    assert asked[-1] is None and {str(place) for place in places} <= set(asked)
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "not in any place\n")
    load_cuda_libraries(SimpleNamespace())  # an older ONNX Runtime


@pytest.mark.parametrize(("precision", "tf32"), [("fp32", "0"), ("fp16", "1"), ("int8", "1")])
def test_less_than_fp32_is_let_onto_the_tensor_cores(
    monkeypatch: pytest.MonkeyPatch, precision: str, tf32: str
) -> None:
    """ONNX Runtime has one switch for them, and calls it after fp32's way to use them."""
    machine = Machine()
    plug_in(monkeypatch, machine)
    sessions = plug_in_onnxruntime(monkeypatch, machine)
    CudaEngine(Bundle.open(DIGITS).graph_path("step"), precision=precision).close()
    assert [session._options["use_tf32"] for session in sessions] == [tf32]
    unplug()


def test_bf16_is_refused_before_onnxruntime_says_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()
    plug_in(monkeypatch, machine)
    plug_in_onnxruntime(monkeypatch, machine)
    with raises_code("E-provider-kernels"):
        CudaEngine(Bundle.open(DIGITS).graph_path("step"), precision="bf16")
    assert machine.leaks() == {}
    unplug()


def test_bindings_of_another_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    machine: Any = Machine()
    plug_in(monkeypatch, machine)
    code = machine.runtime.cudaError_t.cudaErrorInsufficientDriver
    monkeypatch.setattr(machine.runtime, "cudaGetDeviceCount", lambda: (code, None), raising=False)
    plug_in_onnxruntime(monkeypatch, machine)
    with raises_code("E-cuda-driver"):
        edgepure.load(DIGITS, "cuda")
    unplug()
