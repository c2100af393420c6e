"""The parts of the check of a GPU, rehearsed on the CPU with tiny networks."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch

import edgepure
from samples.gpu_check import device_stream, flat_memory, meters, peak, speed, transfers
from samples.gpu_check.context import CannotRunError, Context
from samples.gpu_check.engines import EngineName, opened
from samples.gpu_check.networks import Network, make_bundle
from samples.gpu_check.sections import BY_NAME

pytestmark = pytest.mark.samples


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context("cpu", tmp_path / "partial.json", tmp_path / "work", time.time() + 600, quick=True)


def read(context: Context) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(context.file.read_text())
    return found


# ---- the checks, rehearsed -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["parity", "decisions", "inflight", "memory"])
def test_checks_pass_on_the_cpu(name: str, context: Context) -> None:
    BY_NAME[name](context)
    (result,) = read(context)["results"]
    assert result["part"] == "cpu fp32" and result["ok"]
    assert not read(context)["missing"]


@pytest.mark.parametrize("name", ["noise", "graphs", "copies", "tests"])
def test_checks_that_need_a_gpu_say_so(name: str, context: Context) -> None:
    BY_NAME[name](context)
    assert not read(context)["results"]
    assert len(read(context)["missing"]) == 1


@pytest.mark.goldens
def test_goldens_are_replayed(context: Context) -> None:
    from samples.gpu_check.golden_runs import cases, run_case

    every = cases()
    assert {title.split()[0] for title, _ in every} == {"G2", "G3", "G4", "G5", "G6", "G7"}
    learned = next(make for title, make in every if "guided_learnsigma" in title)
    found = run_case(learned, EngineName("cpu", "fp32"), context)
    assert found["ok"] and 0.0 < found["largest_error"] < 2e-5


def test_the_expected_stream_is_the_one_of_the_runtime() -> None:
    """The words that the kernel is compared with, put through Box-Muller, are the normals of `edgepure.rows.philox`."""
    uniform = (device_stream.expected_words()[:, :4].astype(np.float64) + 0.5) * 2.0**-32
    radius, angle = np.sqrt(-2.0 * np.log(uniform[:, 0::2])), 2.0 * np.pi * uniform[:, 1::2]
    first = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=2).reshape(len(uniform), 4)
    np.testing.assert_allclose(device_stream.expected_normals()[:, :4], first, atol=1e-6)
    assert device_stream.expected_words().shape[1] % 4, "the last thread makes a part only"


def test_a_wrong_word_of_the_device_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    words, values = device_stream.expected_words(), device_stream.expected_normals()
    monkeypatch.setattr(device_stream, "on_device", lambda: (words, values))
    assert device_stream.compare("cuda")["ok"]
    wrong = words.copy()
    wrong[1, 7] ^= 1
    monkeypatch.setattr(device_stream, "on_device", lambda: (wrong, values))
    found = device_stream.compare("cuda")
    assert not found["ok"] and found["different_integers"] == 1
    with pytest.raises(CannotRunError):
        device_stream.compare("cpu")


def test_memory_that_grows_is_noticed(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    from samples.gpu_check.checks import digits

    grown = iter(range(0, 100 << 20, 8 << 20))
    monkeypatch.setattr(flat_memory, "resident", lambda: next(grown))
    with opened(digits(context), EngineName("cpu", "fp32")) as engine:
        found = flat_memory.watch(engine, "cpu", 20)
    assert not found["ok"]
    assert found["host_growth_mib"] == pytest.approx(72.0)


def test_copies_of_a_trace_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    trace = {
        "traceEvents": [
            {"cat": "gpu_memcpy", "name": "Memcpy HtoD (Pinned -> Device)", "args": {"bytes": 64}},
            {"cat": "gpu_memcpy", "name": "Memcpy DtoH (Device -> Pageable)", "args": {"bytes": 4096}},
            {"cat": "kernel", "name": "Memcpy-like kernel"},
        ]
    }
    assert transfers.read_copies(trace) == [{"direction": "HtoD", "bytes": 64}, {"direction": "DtoH", "bytes": 4096}]

    def rows(small: int, noise: int) -> list[list[dict[str, Any]]]:
        """A purification of so many rows: its image in and out, and what every row copies."""
        once = [{"direction": "HtoD", "bytes": 4096}, {"direction": "DtoH", "bytes": 4096}]
        return [once + n * [{"direction": "HtoD", "bytes": small + noise}] for n in (transfers.SHORT, transfers.LONG)]

    for noise, fine in ((0, True), (4096, False)):
        recorded = iter(rows(88, noise))
        monkeypatch.setattr(transfers, "_events", lambda work, recorded=recorded: next(recorded))
        found = transfers.count(type("Engine", (), {"image_shape": (1, 32, 32), "slots": 1})(), "cuda")  # type: ignore[arg-type]
        assert found["bytes_to_gpu_a_row"] == 88 + noise
        assert found["ok"] == fine


# ---- the speed table -------------------------------------------------------------------------------------------------


def test_timing_counts_every_call(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = {"now": 0.0, "joules": 0.0}

    def call() -> None:
        clock["now"] += 0.01
        clock["joules"] += 2.0

    monkeypatch.setattr(meters, "perf_counter", lambda: clock["now"])
    meter = meters.Meter("cpu")
    monkeypatch.setattr(meter, "joules", lambda: clock["joules"])
    found = meters.timed(call, lambda: None, meter, seconds=0.7, rounds=7)
    assert found.ms == pytest.approx(10.0)
    assert found.calls == 70
    assert found.spread == pytest.approx(0.0, abs=1e-9)
    assert found.joules == pytest.approx(2.0)
    short = meters.timed(call, lambda: None, meter, seconds=0.07, rounds=7)
    assert short.joules is None, "the counter is too coarse for so short a time"


def test_a_gpu_without_nvml_is_measured_without_energy() -> None:
    meter = meters.Meter("cpu")
    assert (meter.memory(), meter.joules(), meter.state()) == (None, None, {})
    assert meter.fault == "there is no GPU"


def test_what_nvml_does_not_answer_is_left_out() -> None:
    """A Jetson has no memory of its own to tell of, a part of a GPU no energy, a newer NVML other names."""

    class Nvml:
        NVML_CLOCK_SM, NVML_TEMPERATURE_GPU = 1, 0

        def nvmlDeviceGetTemperature(self, handle: object, sensor: int) -> int:  # noqa: N802
            return 40

        def nvmlDeviceGetMemoryInfo(self, handle: object) -> object:  # noqa: N802
            raise RuntimeError("Not Supported")

    meter = meters.Meter("cpu")
    meter._nvml, meter._handle = Nvml(), object()
    assert (meter.memory(), meter.joules(), meter.state()) == (None, None, {"celsius": 40})


def test_what_pytorch_cannot_do_is_no_failure(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("Failed to find C compiler")

    monkeypatch.setattr(speed.torch, "compile", broken)
    monkeypatch.setattr(speed, "TORCH_WAYS", {"pytorch compile fp32": speed.TorchWay(torch.float32, "reduce-overhead")})
    network = Network("tiny", (3, 8, 8), tiny_models.TinyUNet)
    bench = speed.Bench(context, network, tiny_models.TinyUNet(), Path(), (1,), 0.02, 1.0, {}, meters.Meter("cpu"))
    speed._torch_ways(bench, speed.TORCH_WAYS)
    assert not read(context)["results"]
    assert "Failed to find C compiler" in read(context)["missing"][0]["why"]


@pytest.mark.parametrize("channels_last", [False, True])
def test_pytorch_is_timed_in_the_layout_and_precision_that_is_claimed(
    context: Context, monkeypatch: pytest.MonkeyPatch, channels_last: bool
) -> None:
    seen: list[tuple[Any, ...]] = []

    class Watched(tiny_models.TinyUNet):
        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            weight = next(w for w in self.parameters() if w.dim() == 4 and w.shape[1] > 1)
            last = {"memory_format": torch.channels_last}
            seen.append((x.dtype, weight.dtype, x.is_contiguous(**last), torch.backends.cudnn.benchmark))
            return x

    network = Network("tiny", (3, 8, 8), Watched)
    bench = speed.Bench(context, network, Watched(), Path(), (2,), 0.02, 1.0, {}, meters.Meter("cpu"))
    speed.torch_call(bench, speed.TorchWay(torch.float16, channels_last=channels_last), 2)
    assert set(seen) == {(torch.float16, torch.float16, channels_last, True)}
    assert torch.backends.cudnn.benchmark is False


def test_without_a_gpu_for_pytorch_the_other_engines_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed, "engine_names", lambda device, precisions: [EngineName("cuda", "fp32")])
    monkeypatch.setattr(speed, "make_bundle", lambda unet, shape, out, *_: shutil.copytree(edgepure.demo_bundle(), out))
    if torch.cuda.is_available():
        pytest.skip("PyTorch has a GPU here")
    where = Context("cuda", tmp_path / "partial.json", tmp_path / "work", time.time() + 600, quick=True)
    BY_NAME["peak"](where)
    assert all("cannot use this GPU" in m["why"] for m in read(where)["missing"]) and not read(where)["results"]
    speed.measure(where, "tiny", Network("tiny", (3, 8, 8), tiny_models.TinyUNet), batches=(1,), seconds=0.02)
    assert [r["part"] for r in read(where)["results"]] == ["network", "export"]
    tried = [m["part"] for m in read(where)["missing"]]
    assert "pytorch eager fp32, batch 1" in tried and "edgepure cuda fp32" in tried


def test_a_small_network_through_the_whole_table(context: Context) -> None:
    network = Network("tiny", (3, 8, 8), tiny_models.TinyUNet)
    speed.measure(context, "tiny", network, batches=(1, 2), seconds=0.02)
    results = read(context)["results"]
    assert [r["part"] for r in results] == [
        "network",
        "pytorch eager fp32, batch 1",
        "export",
        "edgepure cpu fp32, batch 1",
        "edgepure cpu fp32",
    ]
    described, eager, exported, ours, error = results
    assert exported["bundle_mib"] > 0.0
    assert described["parameters"] == sum(p.numel() for p in tiny_models.TinyUNet().parameters())
    assert eager["share_of_peak"] > 0.0 and eager["ms_per_call"] > 0.0
    assert ours["rows"] == 10
    assert ours["loop_cost"] == pytest.approx(ours["purification_ms"] / (10 * ours["ms_per_call"]))
    assert error["ok"] and 0.0 < error["relative_error_to_pytorch"] < 1e-5
    # the network is as it was: the next way to run it gets the same weights
    assert next(tiny_models.TinyUNet().parameters()).device.type == "cpu"


def test_flops_of_a_convolution_are_what_the_books_say() -> None:
    from torch import Tensor, nn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 5, 3, padding=1)

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return self.conv(x)[:, :3]

    assert speed.count_flops(Net(), (3, 8, 8), "cpu") == 2 * 3 * 5 * 9 * 64


def test_a_bundle_for_measurements_verifies(context: Context) -> None:
    """Its vectors are real ones, computed by PyTorch."""
    from edgepure.parity.verify import verify

    path = make_bundle(tiny_models.TinyUNet(learned=True), (3, 8, 8), context.work / "b", "cpu", learned=True)
    found = verify(path, threads=1)
    assert found, str(found)
    assert {c.subject for c in found.checks} == {"graph classifier", "graph step", "graph step_learned", "graph unet"}
    stamp = (path / "bundle.json").stat().st_mtime_ns
    assert make_bundle(tiny_models.TinyUNet(), (3, 8, 8), path, "cpu") == path
    assert (path / "bundle.json").stat().st_mtime_ns == stamp, "what is there is used again"


def test_the_peak_is_measured(context: Context) -> None:
    peak.peak(context)
    products, copied = read(context)["results"]
    assert products["fp32_tflops"] > 0.0
    assert copied["gigabytes_a_second_read_and_written"] > 0.0


def test_variants_for_measurements(context: Context) -> None:
    from edgepure.bundle.bundle import Bundle
    from samples.gpu_check.checks import digits
    from samples.gpu_check.variants import add_half, add_int8

    path = digits(context)
    add_half(path, "fp16", context.work)
    add_int8(path, context.work)
    manifest = Bundle.open(path).manifest
    assert set(manifest.variants) == {"fp16", "int8"}
    add_half(path, "fp16", context.work)  # again: nothing happens
    assert Bundle.open(path).manifest == manifest
