"""The doctor believes nothing that it has not tried."""

from __future__ import annotations

import importlib.machinery
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from cli_process import environment, run
from edgepure import doctor
from edgepure.errors import ProviderError


@pytest.fixture(scope="module")
def found() -> doctor.Environment:
    return doctor.gather()


def test_the_tiny_graph_is_the_one_that_is_described() -> None:
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy"]
    body = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "g", tensors[:1], tensors[1:])
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    assert onnx.load_from_string(doctor.TINY_GRAPH) == model


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
    missing = doctor.ProviderStatus("cuda", "CUDAExecutionProvider", False, "not there", "pip install edgepure[cuda]")
    machine = replace(found, providers=(missing,), modules=())
    assert not machine
    assert machine.advice() == ["cuda: not there; pip install edgepure[cuda]"]


def test_a_provider_that_falls_back_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime offers a provider, takes the CPU instead, and says nothing."""

    class Session:
        def __init__(self, *_: Any, **__: Any) -> None: ...

        def get_providers(self) -> list[str]:
            return ["CPUExecutionProvider"]

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    fault = doctor.try_provider("CUDAExecutionProvider")
    assert fault is not None and "took CPUExecutionProvider instead" in fault


def test_a_provider_that_computes_nonsense_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    session = SimpleNamespace(get_providers=lambda: ["X"], run=lambda *_: [np.array([2.0, 3.0], np.float32)])
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *_, **__: session)
    assert doctor.try_provider("X") == "computed [2.0, 3.0] for 1 + 1"


def test_nvidia_smi_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho '580.95, NVIDIA H200, 143771 MiB'\necho '580.95, NVIDIA H200, 143771 MiB'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    machine = doctor.gather()
    assert machine.nvidia_driver == "580.95"
    assert machine.gpus == ("NVIDIA H200, 143771 MiB",) * 2
    cuda = next(p for p in machine.providers if p.name == "cuda")
    assert cuda.works or cuda.install == "pip install edgepure[cuda]"


def test_a_module_that_cannot_be_imported_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.machinery.ModuleSpec("tensorrt", None)
    real_find, real_import = doctor.importlib.util.find_spec, doctor.importlib.import_module

    def broken(name: str) -> ModuleType:
        if name == "tensorrt":
            raise ImportError("libnvinfer.so.10: cannot open shared object file")
        return real_import(name)

    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda n: spec if n == "tensorrt" else real_find(n))
    monkeypatch.setattr(doctor.importlib, "import_module", broken)
    module = next(m for m in doctor.gather().modules if m.name == "tensorrt")
    assert not module.works
    assert "libnvinfer.so.10" in module.detail


def test_the_command_prints_what_was_found() -> None:
    done = run("doctor")
    assert done.code == 0
    for word in ("onnxruntime", "cpu features", "memory", "nvidia driver", "jetson", "torch"):
        assert word in done.stdout
    assert run("doctor", "--json").json["ok"] is True


def test_no_engine_at_all_is_exit_code_5(tmp_path: Path) -> None:
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('broken on purpose')")
    env = environment()
    done = run("doctor", "--json", env={**env, "PYTHONPATH": f"{tmp_path}{os.pathsep}{env['PYTHONPATH']}"})
    done.fails(ProviderError.exit_code, "edgepure[cpu]")
    assert done.json["ok"] is False
    assert any("broken on purpose" in line and "edgepure[cpu]" in line for line in done.json["advice"])
