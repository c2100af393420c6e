"""The sections that need a GPU, on a made-up one: they call what exists, and their verdicts hold."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("cuda.bindings", reason="needs cuda-bindings")

import tiny_models
from fake_cuda import Machine
from gpu_stand_in import plug_in, plug_in_onnxruntime, unplug

from samples.gpu_check import checks, variants
from samples.gpu_check.context import Context
from samples.gpu_check.engines import EngineName
from samples.gpu_check.meters import Meter
from samples.gpu_check.networks import Network, make_bundle
from samples.gpu_check.sections import BY_NAME
from samples.gpu_check.speed import Bench, _engine

pytestmark = pytest.mark.samples


SHAPE = (3, 8, 8)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a tiny network; made before the stand-ins, which PyTorch's exporter does not like."""
    return make_bundle(tiny_models.TinyUNet(), SHAPE, tmp_path_factory.mktemp("tiny") / "tiny", "cpu")


@pytest.fixture
def machine(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """A GPU with TensorRT 11 and with ONNX Runtime for CUDA; without TensorRT for RTX."""
    made = Machine()
    plug_in(monkeypatch, made)
    plug_in_onnxruntime(monkeypatch, made)
    monkeypatch.setattr(checks, "PRECISIONS", ("fp32",))
    for name in ("add_half", "add_int8"):
        monkeypatch.setattr(variants, name, lambda *_: None)
    yield made
    unplug()


def context(tmp_path: Path, device: str = "cuda") -> Context:
    return Context(device, tmp_path / "partial.json", tmp_path / "work", time.time() + 600, quick=True)


def read(where: Context) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(where.file.read_text())
    return found


def test_the_noise_kernel_is_compared(machine: Machine, tmp_path: Path) -> None:
    where = context(tmp_path)
    BY_NAME["noise"](where)
    (found,) = read(where)["results"]
    assert found["ok"] and found["integers"] == 4 * 3 * 33 * 31
    assert machine.leaks() == {}


@pytest.mark.parametrize("name", ["parity", "decisions"])
def test_engines_against_the_cpu(name: str, machine: Machine, tmp_path: Path) -> None:
    where = context(tmp_path)
    BY_NAME[name](where)
    found = read(where)
    assert [(r["part"], r["ok"]) for r in found["results"]] == [("cuda fp32", True), ("tensorrt fp32", True)]
    assert [m["part"] for m in found["missing"]] == ["tensorrt-rtx fp32"]
    assert machine.leaks() == {}


def test_images_in_flight(machine: Machine, tmp_path: Path) -> None:
    where = context(tmp_path)
    BY_NAME["inflight"](where)
    assert [(r["part"], r["ok"]) for r in read(where)["results"]] == [("cuda fp32", True), ("tensorrt fp32", True)]


def test_cuda_graphs_and_noise(machine: Machine, tmp_path: Path) -> None:
    where = context(tmp_path)
    BY_NAME["graphs"](where)
    tensorrt, cuda = (next(r for r in read(where)["results"] if r["part"] == f"{p} fp32") for p in ("tensorrt", "cuda"))
    for found in (tensorrt, cuda):
        assert found["ok"], found
        assert found["difference_without_graphs"] == 0.0
        assert found["difference_with_noise_of_the_host"] < 1e-5
        assert {"ms_a_row_graphs", "ms_a_row_no_graphs", "ms_a_row_host_noise"} <= set(found)
    assert tensorrt["captured"] > 0 and "captured" not in cuda
    assert machine.leaks() == {}


def test_a_graph_of_onnxruntime_that_computes_something_else_is_a_failure(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if it read memory that was used again after it was captured."""
    from gpu_stand_in import CudaSession

    real, calls = CudaSession.run_with_iobinding, dict[str, int]()

    def stale(self: CudaSession, iobinding: Any, run_options: Any = None) -> None:
        number = run_options.get_run_config_entry("gpu_graph_id") if self._options["enable_cuda_graph"] == "1" else ""
        calls[number] = calls.get(number, 0) + 1
        if number != "1" or calls[number] <= 3:
            real(self, iobinding, run_options)

    monkeypatch.setattr(CudaSession, "run_with_iobinding", stale)
    where = context(tmp_path)
    BY_NAME["graphs"](where)
    found = {r["part"]: r["ok"] for r in read(where)["results"]}
    assert found == {"cuda fp32": False, "tensorrt fp32": True}


def test_graphs_that_cannot_be_captured_are_a_failure(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgepure.engines.tensorrt.engine import TensorRTStepper

    monkeypatch.setattr(TensorRTStepper, "captured", 0)
    where = context(tmp_path)
    BY_NAME["graphs"](where)
    assert not next(r for r in read(where)["results"] if r["part"] == "tensorrt fp32")["ok"]


@pytest.mark.parametrize("provider", ["tensorrt", "cuda"])
def test_a_speed_table(provider: str, machine: Machine, tiny: Path, tmp_path: Path) -> None:
    where = context(tmp_path, "cpu")
    bundle = Path(shutil.copytree(tiny, tmp_path / "copy"))
    network = Network("tiny", SHAPE, tiny_models.TinyUNet)
    peaks = {"fp32": 1e12}
    bench = Bench(where, network, tiny_models.TinyUNet(), bundle, (1, 2), 0.02, 1e6, peaks, Meter("cpu"))
    _engine(bench, EngineName(provider, "fp32"))
    found = read(where)
    assert not found["missing"]
    titles = [f"edgepure {provider} fp32"] + [f"edgepure {provider} fp32, CUDA graphs"] * (provider == "cuda")
    rows = [r for r in found["results"] if "ms_per_call" in r]
    assert [r["part"] for r in rows] == [f"{title}, batch {batch}" for title in titles for batch in (1, 2)]
    for row in rows:
        assert row["share_of_peak"] == pytest.approx(1e6 * row["batch"] / (row["ms_per_call"] * 1e-3) / 1e12)
    assert all(r.get("ok", True) for r in found["results"]), found
    assert machine.leaks() == {}
