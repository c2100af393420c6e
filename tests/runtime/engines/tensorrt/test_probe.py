"""TensorRT is tried in a process of its own, whatever that process does."""

from __future__ import annotations

import re
from pathlib import Path

import cli_process
import onnx
import pytest
from onnx import TensorProto, helper

from edgepure.engines.tensorrt import probe as tensorrt_probe
from edgepure.engines.tensorrt.probe import Found, probe


def test_the_tiny_graph_is_the_one_that_is_described() -> None:
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy"]
    body = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "g", tensors[:1], tensors[1:])
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    assert onnx.load_from_string(tensorrt_probe.TINY_GRAPH) == model


def test_a_real_module_builds_without_a_gpu() -> None:
    module = pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx (pip install edgepure[rtx])")
    found = probe("tensorrt_rtx", run=False)
    assert found == Found(module.__version__, builds=True)


@pytest.mark.gpu
def test_a_real_module_runs_on_a_gpu() -> None:
    pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx (pip install edgepure[rtx])")
    assert probe("tensorrt_rtx", run=True).runs


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("raise ImportError('libnvinfer.so.10: cannot open shared object file')", r"cannot be imported \(libnvinfer"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "ended the process that tried it, by signal 11"),
        ("import sys; sys.exit(3)", "ended the process that tried it, with exit code 3"),
        ("__version__ = '10.3.0'\nprint('a banner')", "cannot build an engine"),
    ],
)
def test_modules_that_do_not_work(code: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_tensorrt.py").write_text(code)
    places = cli_process.environment()["PYTHONPATH"]
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{places}")
    found = probe("broken_tensorrt", run=False)
    assert not found.builds and not found.runs
    assert re.search(words, found.fault), found.fault


def test_a_module_that_never_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slow_tensorrt.py").write_text("import time; time.sleep(60)")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{cli_process.environment()['PYTHONPATH']}")
    monkeypatch.setattr(tensorrt_probe, "PATIENCE", 1.0)
    assert "no answer within 1 s" in probe("slow_tensorrt", run=False).fault
