"""The doctor believes nothing that it has not tried."""

from __future__ import annotations

import importlib
import importlib.machinery
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
from cli_process import environment, run
from codes import raises_code

from edgepure.cli.doctor import _torch
from edgepure.engines import onnxruntime as onnxruntime_engine
from edgepure.engines import openvino as openvino_engine
from edgepure.engines.gpu import onnxruntime as cuda_engine
from edgepure.engines.tensorrt import probe as tensorrt_probe
from edgepure.engines.tensorrt.probe import Found
from edgepure.errors import ProviderError
from edgepure.machine import jetson as jetsons
from edgepure.machine import nvidia
from edgepure.machine.jetson import Jetson
from edgepure.machine.nvidia import Driver, Gpu

#: The module: `edgepure.doctor` is the function.
doctor = importlib.import_module("edgepure.doctor")
GPU = Driver("580.95.05", "13.0", (Gpu("NVIDIA H200", "9.0", 150_000_000_000),))
NO_GPU = Driver(fault="no NVIDIA driver on this machine (libcuda)")


@pytest.fixture(scope="module")
def found() -> doctor.Environment:
    return doctor.doctor()


def test_this_machine_is_described(found: doctor.Environment) -> None:
    assert bool(found)
    assert found.numpy == np.__version__
    assert found.onnxruntime is not None and found.onnxruntime.startswith(onnxruntime.__version__)
    assert found.python == ".".join(str(n) for n in sys.version_info[:3])
    assert found.cores >= 1
    assert found.torch == (doctor.importlib.util.find_spec("torch") is not None)
    cpu = next(p for p in found.providers if p.name == "cpu")
    assert cpu.works and cpu.detail == ""
    assert json.loads(json.dumps(found.to_dict()))["ok"] is True


def test_a_missing_engine_comes_with_the_line_that_installs_it(found: doctor.Environment) -> None:
    line = "pip install edgepure[cuda]"
    missing = doctor.ProviderStatus("cuda", "ONNX Runtime", None, False, detail="not there", install=line)
    machine = replace(found, providers=(missing,), parts=())
    assert not machine
    assert machine.advice()[-1] == "cuda: not there; pip install edgepure[cuda]"


def cuda_that_is_offered(monkeypatch: pytest.MonkeyPatch, session: Any) -> doctor.ProviderStatus:
    """What the doctor says of CUDA, if ONNX Runtime offers it and makes such sessions."""
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    return doctor.provider_status("cuda", GPU, None)


def test_a_provider_that_falls_back_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime offers a provider, takes the CPU instead, and says nothing."""

    class Session:
        def __init__(self, *_: Any, **__: Any) -> None: ...

        def get_providers(self) -> list[str]:
            return ["CPUExecutionProvider"]

    loaded: list[bool] = []
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda **_: loaded.append(True), raising=False)
    found = cuda_that_is_offered(monkeypatch, Session)
    assert not found.works and "took CPUExecutionProvider instead" in found.detail
    assert loaded, "CUDA's libraries that are Python packages are found as by the engine"


def test_a_gpu_without_cudnn_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two numbers can be added without it."""
    name = "CUDAExecutionProvider"
    session = SimpleNamespace(get_providers=lambda: [name], run=lambda *_: [np.array([2.0, 2.0], np.float32)])
    for missing in ("libcudnn.so.9: cannot open shared object file", ""):
        monkeypatch.setattr(cuda_engine, "why_inactive", lambda _, missing=missing: missing)
        found = cuda_that_is_offered(monkeypatch, lambda *_, **__: session)
        assert (found.works, found.detail) == (not missing, missing)


def test_a_provider_that_computes_nonsense_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "CUDAExecutionProvider"
    session = SimpleNamespace(get_providers=lambda: [name], run=lambda *_: [np.array([2.0, 3.0], np.float32)])
    found = cuda_that_is_offered(monkeypatch, lambda *_, **__: session)
    assert (found.works, found.detail) == (False, "computed [2.0, 3.0] for 1 + 1")


def test_a_gpu_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the driver says decides what is advised; no engine of this machine runs on a GPU."""
    monkeypatch.setattr(nvidia, "find", lambda: GPU)
    monkeypatch.setattr(tensorrt_probe, "probe", lambda module, run: Found("1.7.1", True, run))
    machine = doctor.doctor()
    assert machine.driver == GPU
    assert json.loads(json.dumps(machine.to_dict()))["driver"]["gpus"][0]["compute_capability"] == "9.0"
    cuda = next(p for p in machine.providers if p.name == "cuda")
    assert cuda.works or "edgepure[cuda]" in cuda.install
    for module in machine.providers:
        if module.name.startswith("tensorrt") and module.version is not None:
            assert module.works and module.detail == ""


def test_a_jetson(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvidia, "find", lambda: Driver("540.4.0", "12.6", (Gpu("Orin", "8.7", 8 << 30),)))
    monkeypatch.setattr(jetsons, "find", lambda: Jetson("36.4.3", "Jetson Orin Nano", "MAXN_SUPER"))
    monkeypatch.setattr(
        tensorrt_probe, "probe", lambda module, run: Found("1.7.1", True, False, "cannot run an engine (no)")
    )
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    machine = doctor.doctor()
    assert machine.to_dict()["jetson"] == {
        "l4t": "36.4.3", "model": "Jetson Orin Nano", "power_mode": "MAXN_SUPER", "jetpack": 6
    }  # fmt: skip
    advice = " | ".join(machine.advice())
    assert "tensorrt: not installed; sudo apt install nvidia-jetpack" in advice
    assert "jp6/cu126" in advice
    assert "tensorrt-rtx" not in advice, "it has no engines for a Jetson"


def openvino_status(monkeypatch: pytest.MonkeyPatch, openvino: object) -> doctor.ProviderStatus:
    """What the doctor says of OpenVINO if this is its module."""
    monkeypatch.setattr(openvino_engine, "import_openvino", lambda: openvino)
    return doctor.provider_status("openvino", NO_GPU, None)


def fake_openvino(result: list[float], capabilities: list[str]) -> SimpleNamespace:
    core = SimpleNamespace(
        read_model=lambda model: model,
        compile_model=lambda *_: lambda feeds: [np.array(result, np.float32)],
        get_property=lambda device, name: capabilities,
    )
    return SimpleNamespace(Core=lambda: core)


@pytest.mark.needs("openvino")
def test_openvino_is_tried(found: doctor.Environment) -> None:
    module = next(p for p in found.providers if p.name == "openvino")
    assert (module.works, module.version) == (True, doctor.package_version("openvino"))
    assert module.detail.endswith("in hardware") and module.install == ""
    assert replace(found, providers=(module,)), "OpenVINO alone is an engine"


@pytest.mark.needs("openvino")
@pytest.mark.parametrize(
    ("capabilities", "features", "words"),
    [
        (["BF16", "FP32", "INT8"], ("avx512_vnni",), "bf16 and int8 in hardware"),
        (["BF16", "FP32", "INT8"], (), "bf16 in hardware"),
        (["FP32", "INT8"], (), "no bf16 in hardware"),  # and int8 is not known
        (["FP32", "INT8"], ("avx2", "avx_vnni"), "int8 in hardware"),
        (["FP32", "FP16", "INT8"], ("avx2", "fma"), "neither bf16 nor int8 in hardware"),  # it has kernels all the same
    ],
)
def test_what_the_processor_has_for_variants(
    capabilities: list[str], features: tuple[str, ...], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino_engine, "cpu_features", lambda: features)
    module = openvino_status(monkeypatch, fake_openvino([2.0, 2.0], capabilities))
    assert module.works and module.detail == words


@pytest.mark.needs("openvino")
def test_openvino_that_computes_nonsense_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    module = openvino_status(monkeypatch, fake_openvino([2.0, 3.0], ["BF16"]))
    assert (module.works, module.detail) == (False, "computed [2.0, 3.0] for 1 + 1")

    def broken() -> None:
        raise RuntimeError("Exception from src/core.cpp:12:\nno plugin for CPU\n")

    module = openvino_status(monkeypatch, SimpleNamespace(Core=broken))
    assert (module.works, module.detail) == (False, "no plugin for CPU")


def test_a_machine_without_openvino_is_not_ill(found: doctor.Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    module = doctor.provider_status("openvino", found.driver, None)
    assert (module.version, module.works, module.detail) == (None, False, "not installed")
    machine = replace(found, providers=(*(p for p in found.providers if p.name == "cpu"), module))
    assert machine
    (line,) = [line for line in machine.advice() if line.startswith("openvino")]
    assert "optional" in line and "pip install edgepure[openvino]" in line


@pytest.mark.needs("openvino")
def test_openvino_reports_its_use_to_nobody(tmp_path: Path) -> None:
    (tmp_path / "openvino_telemetry.py").write_text(f"open({str(tmp_path / 'sent')!r}, 'w')")
    env = environment()
    env["PYTHONPATH"] = f"{tmp_path}{os.pathsep}{env['PYTHONPATH']}"
    done = run("doctor", "--json", env=env)
    assert next(p for p in done.json["providers"] if p["name"] == "openvino")["works"]
    assert not (tmp_path / "sent").exists()


@pytest.mark.parametrize(
    ("found", "works", "builds", "words"),
    [
        (Found(None, fault="cannot be imported (libnvinfer.so.10: no such file)"), False, False, "libnvinfer.so.10"),
        (Found("10.3.0", True), False, True, "builds engines, but cannot run them: no NVIDIA driver"),
        (Found("10.3.0", True, False, "cannot run an engine (stale)"), False, True, "stale"),
        (Found("10.3.0", True, True), True, True, ""),
    ],
)
def test_what_a_module_can_do(
    found: Found, works: bool, builds: bool, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = importlib.machinery.ModuleSpec("tensorrt", None)
    real = doctor.importlib.util.find_spec
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda n: spec if n == "tensorrt" else real(n))
    monkeypatch.setattr(tensorrt_probe, "probe", lambda module, run: found)
    monkeypatch.setattr(nvidia, "find", lambda: NO_GPU)
    module = next(p for p in doctor.doctor().providers if p.name == "tensorrt")
    assert (module.works, module.builds) == (works, builds)
    assert words in module.detail
    machine = replace(doctor.doctor(), providers=(module,))
    assert bool(machine) == works, "TensorRT alone is an engine"


def test_bindings_that_do_not_fit_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    if doctor.package_version("cuda-bindings") is None:
        pytest.skip("cuda-bindings is not installed")

    class Code(int):
        name = "cudaErrorInsufficientDriver"

    runtime = SimpleNamespace(cudaGetDeviceCount=lambda: (Code(35), 0))
    monkeypatch.setattr(doctor.importlib, "import_module", lambda name: runtime)
    found = doctor._bindings(GPU, None)
    assert not found.works
    assert found.detail == "finds no GPU (cudaErrorInsufficientDriver)"
    assert found.install == 'pip install "cuda-bindings==13.*"'
    runtime.cudaGetDeviceCount = lambda: (Code(0), 1)
    assert doctor._bindings(GPU, None).works


@pytest.mark.parametrize(("board", "words"), [(None, "edgepure[export]"), (Jetson("36.4.3"), "on a workstation")])
def test_torch_is_for_export_and_export_is_not_for_a_board(board: Jetson | None, words: str) -> None:
    machine = replace(doctor.doctor(), torch=False, jetson=board)
    assert words in _torch(machine)
    assert _torch(replace(machine, torch=True)) == "installed"


def test_the_command_prints_what_was_found() -> None:
    done = run("doctor")
    assert done.code == 0
    for word in (
        "onnxruntime",
        "cpu features",
        "memory",
        "nvidia driver",
        "jetson",
        "torch",
        "openvino",
        "cuda.bindings",
    ):
        assert word in done.stdout
    assert run("doctor", "--json").json["ok"] is True


BROKEN = (
    "raise ImportError('broken on purpose')",
    "raise OSError('broken on purpose: undefined symbol')",
    "raise RuntimeError('broken on purpose\\nmodule compiled against another ABI of NumPy')",
    "broken_on_purpose",
)


@pytest.mark.parametrize("code", BROKEN, ids=["ImportError", "OSError", "RuntimeError", "NameError"])
def test_a_broken_installation_is_a_provider_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, extra, function in (
        ("onnxruntime", "cpu", onnxruntime_engine.import_onnxruntime),
        ("openvino", "openvino", openvino_engine.import_openvino),
    ):
        (tmp_path / f"{name}.py").write_text(code)
        monkeypatch.delitem(sys.modules, name, raising=False)
        with raises_code(f"E-package-{name}") as caught:
            function()
        assert "broken" in str(caught.value) and f"edgepure[{extra}]" in str(caught.value)
        assert "\n" not in str(caught.value)
        (tmp_path / f"{name}.py").unlink()
        monkeypatch.setitem(sys.modules, name, ModuleType(name))  # what a folder without files imports as
        with raises_code(f"E-package-{name}") as caught:
            function()
        assert "AttributeError" in str(caught.value)
        if name == "onnxruntime":
            assert "cannot be imported" in doctor.provider_status("cpu", NO_GPU, None).detail


@pytest.mark.parametrize("code", ["raise ImportError('broken on purpose')", "raise OSError('broken on purpose')"])
def test_no_engine_at_all_is_exit_code_5(tmp_path: Path, code: str) -> None:
    for name in ("onnxruntime", "openvino"):
        (tmp_path / f"{name}.py").write_text(code)
    env = environment()
    done = run("doctor", "--json", env={**env, "PYTHONPATH": f"{tmp_path}{os.pathsep}{env['PYTHONPATH']}"})
    done.fails(ProviderError.exit_code, "edgepure[cpu]")
    assert done.json["ok"] is False
    assert any("broken on purpose" in line and "edgepure[cpu]" in line for line in done.json["advice"])
    openvino = next(p for p in done.json["providers"] if p["name"] == "openvino")
    assert "broken on purpose" in openvino["detail"] and "edgepure[openvino]" in openvino["install"]
