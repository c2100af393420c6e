"""Building engines: on the stand-in of every version for what TensorRT is asked for, and with the real one for RTX."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import onnx
import pytest
from codes import raises_code
from fake_cuda import Machine
from gpu_stand_in import copy_of_digits, plug_in, real_rtx, unplug, unplug_driver
from onnx import TensorProto, helper

import edgepure.engines.tensorrt.build as tensorrt_build
from edgepure.bundle.bundle import Bundle, hash_files
from edgepure.bundle.edit import edit_bundle
from edgepure.engines.tensorrt.build import build_engines, build_plan
from edgepure.engines.tensorrt.engine_files import read_plan
from edgepure.engines.tensorrt.module import fault, import_tensorrt, make_log
from edgepure.engines.tensorrt.progress import Phases
from edgepure.errors import EdgepureError, ProviderError
from edgepure.files import folders
from edgepure.machine.jetson import Jetson
from edgepure.machine.nvidia import Gpu

GRAPHS = ["classifier", "mask", "step", "unet"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return copy_of_digits(tmp_path)


def contents(engine: tensorrt_build.BuiltEngine) -> Any:
    """What the stand-in was asked to build."""
    return json.loads(engine.path.read_bytes())


# ---- what TensorRT is asked for --------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["10.3.0", "10.13.3", "11.4.0"])
def test_one_way_for_every_version(folder: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    plug_in(monkeypatch, Machine(), version=version)
    built = build_engines(folder, batches=(4, 1), workspace_mb=256)
    assert [engine.graph for engine in built] == GRAPHS
    step = contents(built[2])
    assert [shapes["coeffs"] for shapes in step["profiles"]] == [[[1, 16]] * 3, [[4, 16]] * 3]
    assert [shapes["x"] for shapes in step["profiles"]] == [[[1, 1, 16, 16]] * 3, [[4, 1, 16, 16]] * 3]
    assert step["flags"] == [] and step["aux"] == 0 and step["pools"] == {"WORKSPACE": 256 << 20}
    key = built[2].key
    assert (key.provider, key.version, key.batches, key.flags) == ("tensorrt", version, (1, 4), ("STRONGLY_TYPED",))
    assert built[2].path.parent.name == f"tensorrt-{version}-Made_up_GPU-sm89-cuda13.0"
    unplug()


def test_options_are_flags_by_name(folder: Path, gpu: Any) -> None:
    (built,) = build_engines(folder, graphs=["step"], version_compatible=True, tf32=True)
    assert contents(built)["flags"] == ["TF32", "VERSION_COMPATIBLE"]
    assert built.key.flags == ("STRONGLY_TYPED", "TF32", "VERSION_COMPATIBLE")


def test_the_record_is_readable_and_complete(folder: Path, gpu: Any) -> None:
    (built,) = build_engines(folder, batches=(2,), graphs=["unet"])
    record = json.loads(built.path.with_suffix(".json").read_text())
    assert record["key"]["machine"] == {
        "gpu": "Made-up GPU", "compute_capability": "8.9", "cuda": "13.0", "l4t": "",
    }  # fmt: skip
    assert record["key"]["profiles"] == [{"x": [2, 1, 16, 16], "t": [2]}]
    assert len(record["key"]["onnx_sha256"]) == 64
    plan = read_plan(built.path.with_suffix(".json"))
    assert plan is not None and plan.key == built.key and plan.intact()
    Bundle.open(folder)  # engines are no part of what the manifest lists


def test_an_engine_is_kept_until_its_key_changes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def reused(**options: Any) -> list[bool]:
        return [engine.reused for engine in build_engines(folder, graphs=["unet", "step"], **options)]

    plug_in(monkeypatch, Machine())
    assert reused() == [False, False]
    assert reused() == [True, True]
    assert reused(batches=(1, 2)) == [False, False]
    assert reused(batches=(2, 1)) == [True, True]
    assert reused(batches=(1, 2), force=True) == [False, False]
    assert reused(batches=(1, 2), tf32=True) == [False, False]
    assert reused(batches=(1, 2), tf32=True, workspace_mb=8) == [False, False]
    plug_in(monkeypatch, Machine(), version="11.4.1")
    assert reused() == [False, False]
    plug_in(monkeypatch, Machine(), gpu=Gpu("Another GPU", "9.0", 8 << 30))
    assert reused() == [False, False]
    assert len(list(folder.glob("engines/*"))) == 3
    plan = next(folder.glob("engines/*Another*/step.fp32.plan"))
    plan.write_bytes(plan.read_bytes()[:-1] + b" ")
    assert reused() == [False, True]  # a damaged one is built again
    unplug()


def test_other_weights_are_another_engine(folder: Path, gpu: Any) -> None:
    build_engines(folder, graphs=["step"])
    weights = folder / "weights.bin"
    data = bytearray(weights.read_bytes())
    data[100] ^= 1
    weights.write_bytes(data)
    with raises_code("E-bundle-hash"):
        build_engines(folder, graphs=["step"])
    rewrite(folder, "weights.bin", bytes(data))
    assert [engine.reused for engine in build_engines(folder, graphs=["step"])] == [False]


def while_building(patch: pytest.MonkeyPatch, change: Any) -> None:
    """Let something happen to the bundle when the builder is done and nothing is written yet."""
    real = tensorrt_build.build_plan

    def build(*arguments: Any) -> bytes:
        data = real(*arguments)
        change()
        return data

    patch.setattr(tensorrt_build, "build_plan", build)


def test_a_bundle_that_changes_meanwhile_keeps_its_engine(
    folder: Path, gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change() -> None:
        with edit_bundle(folder) as edit:
            edit.write("notes/a.json", b"{}")

    while_building(monkeypatch, change)
    (built,) = build_engines(folder, graphs=["step"])
    assert built.path.is_file() and "notes/a.json" in Bundle.open(folder).manifest.files


def test_an_engine_that_is_finished_while_a_change_ends_waits_for_it(
    folder: Path, gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The change takes the engines along and puts another folder in the bundle's place: the engine must be in that."""
    finished, change_ends, built = threading.Event(), threading.Event(), []
    sync = folders._sync_tree

    def slow_sync(root: Path) -> None:  # the last thing before the change takes the bundle's place; it holds the lock
        change_ends.set()
        build.join(0.5)
        assert build.is_alive() and not list(folder.glob("engines/**/*.plan"))
        sync(root)

    def wait() -> None:
        finished.set()
        change_ends.wait(30)

    while_building(monkeypatch, wait)
    build = threading.Thread(target=lambda: built.extend(build_engines(folder, graphs=["step"])))
    build.start()
    assert finished.wait(30)
    with monkeypatch.context() as patch, edit_bundle(folder) as edit:
        edit.write("notes/a.json", b"{}")
        patch.setattr(folders, "_sync_tree", slow_sync)
    build.join(30)
    assert built[0].path.is_file() and "notes/a.json" in Bundle.open(folder).manifest.files


def test_an_engine_of_a_graph_that_was_replaced_meanwhile_is_not_kept(
    folder: Path, gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = folder / "weights.bin"
    changed = bytes([weights.read_bytes()[0] ^ 1]) + weights.read_bytes()[1:]

    def change() -> None:
        with edit_bundle(folder) as edit:
            edit.write("weights.bin", changed)

    while_building(monkeypatch, change)
    with raises_code("E-build-changed"):
        build_engines(folder, graphs=["step"])
    assert not list(folder.glob("engines/**/*.plan"))
    monkeypatch.setattr(tensorrt_build, "build_plan", build_plan)
    assert [engine.reused for engine in build_engines(folder, graphs=["step"])] == [False]


def test_the_timing_cache(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "timing.cache"
    plug_in(monkeypatch, Machine())
    build_engines(folder, graphs=["unet"], timing_cache=cache)
    assert cache.read_bytes() == b"timing 11.4.0.106"
    build_engines(folder, graphs=["unet"], timing_cache=cache, force=True)
    plug_in(monkeypatch, Machine(), version="11.5.0")
    with raises_code("E-build-timing-cache"):
        build_engines(folder, graphs=["unet"], timing_cache=cache)
    assert cache.read_bytes() == b"timing 11.4.0.106"
    cache.write_bytes(b"something else")
    with raises_code("E-build-timing-cache"):
        build_engines(folder, graphs=["unet"], timing_cache=cache)
    unplug()


def test_a_jetson_shares_its_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    orin = Gpu("Orin", "8.7", 8 << 30)
    plug_in(monkeypatch, Machine(1 << 30), version="10.3.0", gpu=orin, module=Jetson("36.4.3", "Jetson Orin Nano"))
    (built,) = build_engines(folder, graphs=["unet"])
    assert contents(built)["pools"] == {"WORKSPACE": 512 << 20}
    assert built.path.parent.name == "tensorrt-10.3.0-Orin-sm87-cuda13.0-l4t36.4.3"
    unplug()


# ---- progress and stopping -------------------------------------------------------------------------------------------


def test_progress_grows_from_0_to_1(folder: Path, gpu: Any) -> None:
    seen: list[tuple[str, float]] = []
    build_engines(folder, graphs=["step", "unet"], on_progress=lambda share, what: seen.append((what, share)))
    shares = [share for _, share in seen]
    assert shares[0] == 0.0 and shares[-1] == 1.0 and shares == sorted(shares)
    assert len(set(shares)) > 10
    assert {what for what, _ in seen} == {"building step (fp32)", "building unet (fp32)"}


def test_phases_that_end_do_not_undo_progress() -> None:
    seen: list[float] = []
    phases = Phases(seen.append)
    phases.start("all", None, 2)
    phases.start("one", "all", 2)
    phases.step("one", 0)
    phases.step("one", 1)
    phases.finish("one")
    phases.step("all", 0)
    phases.start("two", "all", 4)
    phases.step("two", 0)
    assert seen == [0.25, 0.5, 0.5, 0.625]
    phases.step("unknown", 3)
    assert seen[-1] == 0.625


def test_ctrl_c_stops_the_builder(folder: Path, gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The builder is asked to stop, and has ended when the exception arrives."""
    monkeypatch.setattr(gpu.tensorrt.Builder, "steps", 10_000)
    monkeypatch.setattr(gpu.tensorrt.Builder, "pause", 0.002)
    real, calls = threading.Thread.join, []

    def join(thread: threading.Thread, timeout: float | None = None) -> None:
        if thread.name.startswith("build ") and not calls:
            calls.append(thread)
            raise KeyboardInterrupt
        real(thread, timeout)

    monkeypatch.setattr(threading.Thread, "join", join)
    with pytest.raises(KeyboardInterrupt):
        build_engines(folder, graphs=["step"])
    assert not calls[0].is_alive()
    assert not list(folder.glob("engines/**/*.plan"))


# ---- what goes wrong -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batches", [(), (0,), (1, 1), (5000,)])
def test_bad_batches(folder: Path, gpu: Any, batches: tuple[int, ...]) -> None:
    with raises_code("E-build-batch"):
        build_engines(folder, batches=batches)


def test_no_tensorrt(folder: Path, gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with raises_code("E-package-tensorrt"):
        build_engines(folder)
    with raises_code("E-build-provider"):
        build_engines(folder, provider="trt")


def test_no_gpu(folder: Path, gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    unplug_driver(monkeypatch, "no driver here")
    with raises_code("E-provider-device"):
        build_engines(folder, provider="tensorrt")


def test_a_fault_tells_of_itself_and_not_of_an_earlier_one(gpu: Any) -> None:
    """A CUDA graph that could not be captured must not be named as the reason of what fails an hour later."""
    trt = import_tensorrt("tensorrt")
    log = make_log(trt)
    log.log(trt.module.ILogger.ERROR, "the first fault")
    assert "the first fault" in str(fault("capturing", trt, log))
    log.log(trt.module.ILogger.ERROR, "out of memory")
    assert "first" not in str(fault("running", trt, log))


def test_a_gpu_that_tensorrt_for_rtx_is_not_made_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(monkeypatch, Machine(), version="1.7.1", rtx=True, gpu=Gpu("NVIDIA H200", "9.0", 141 << 30))
    with raises_code("E-build-device"):
        build_engines(folder, provider="tensorrt-rtx")
    assert "SM90" not in real_rtx().ComputeCapability.__members__
    unplug()


def test_targets_need_tensorrt_for_rtx(folder: Path, gpu: Any) -> None:
    with raises_code("E-build-here"):
        build_engines(folder, provider="tensorrt", targets=["sm86"])


@pytest.mark.parametrize(
    ("line", "kind", "words"),
    [
        ("[allocator] Out of memory (requested 2 GiB)", EdgepureError, "not enough GPU memory; end what else"),
        ("Could not find any implementation for node /conv", ProviderError, "no kernel for a part of the graph"),
        ("CUDA initialization failure with error: 35", ProviderError, "driver is missing, or too old"),
        ("Something new", ProviderError, "failed. TensorRT 11.4.0.106 said: Something new"),
    ],
)
def test_the_builders_errors_in_plain_words(
    folder: Path, gpu: Any, monkeypatch: pytest.MonkeyPatch, line: str, kind: type, words: str
) -> None:
    monkeypatch.setattr(gpu.tensorrt.Builder, "fails", line)
    with pytest.raises(kind) as caught:
        build_engines(folder, graphs=["step"])
    assert words in str(caught.value) and line.split("(")[0] in str(caught.value)
    assert type(caught.value) is kind
    assert not list(folder.glob("engines/**/*.plan"))


def test_a_full_disk_leaves_the_old_engine(folder: Path, gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (old,) = build_engines(folder, graphs=["unet"])
    before = {p.name: p.read_bytes() for p in old.path.parent.iterdir()}

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with raises_code("E-disk-full"):
            build_engines(folder, graphs=["unet"], tf32=True)
    assert {p.name: p.read_bytes() for p in old.path.parent.iterdir()} == before
    assert [e.reused for e in build_engines(folder, graphs=["unet"])] == [True]


def test_too_little_memory_is_said_before_building(folder: Path, gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import edgepure.engines.tensorrt.options as checks

    with monkeypatch.context() as patch:
        patch.setattr(checks, "available_memory", lambda: 1 << 20)
        with raises_code("E-memory"):
            build_engines(folder, graphs=["step"])
    gpu.machine.total = 1 << 20
    with raises_code("E-build-memory"):
        build_engines(folder, graphs=["step"])


@pytest.mark.parametrize(("precision", "capability"), [("bf16", "7.5"), ("fp8", "8.7")])
def test_a_precision_that_the_gpu_lacks(
    folder: Path, monkeypatch: pytest.MonkeyPatch, precision: str, capability: str
) -> None:
    raw = json.loads((folder / "bundle.json").read_text())
    raw["variants"] = {precision: {"step": {**raw["graphs"]["step"], "precision": precision}}}
    (folder / "bundle.json").write_text(json.dumps(raw))
    plug_in(monkeypatch, Machine(), gpu=Gpu("Old GPU", capability, 8 << 30))
    with raises_code("E-provider-precision"):
        build_engines(folder, precision, graphs=["step"])
    plug_in(monkeypatch, Machine(), gpu=Gpu("New GPU", "9.0", 8 << 30))
    (built,) = build_engines(folder, precision, graphs=["step"])
    assert built.path.name == f"step.{precision}.plan"
    (other,) = build_engines(folder, precision, graphs=["unet"])  # the variant has no unet
    assert other.path.name == "unet.fp32.plan"
    unplug()


def rewrite(folder: Path, name: str, data: bytes) -> None:
    """Replace a file of a bundle, hashes included, as one who means harm could."""
    (folder / name).write_bytes(data)
    raw = json.loads((folder / "bundle.json").read_text())
    raw["files"] = {path: entry.model_dump() for path, entry in hash_files(folder).items()}
    (folder / "bundle.json").write_text(json.dumps(raw))


def small_graph(batch: int | str, op: str = "Identity") -> bytes:
    """A graph with the interface of the digits' classifier that computes nothing useful."""
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 1, 16, 16])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, 10])
    nodes = [
        helper.make_node("Flatten", ["image"], ["flat"]),
        helper.make_node("Slice", ["flat", "start", "end", "axis"], ["cut"]),
        helper.make_node(op, ["cut"], ["logits"], name="last"),
    ]
    constants = [
        helper.make_tensor(name, TensorProto.INT64, [1], [value])
        for name, value in (("start", 0), ("end", 10), ("axis", 1))
    ]
    graph = helper.make_graph(nodes, "classifier", [image], [logits], constants)
    return bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9).SerializeToString()
    )


@pytest.mark.parametrize("real", [False, True], ids=["stand-in", "rtx"])
class TestGraphsThatCannotBeBuilt:
    """By the stand-in and by the real TensorRT for RTX alike."""

    @pytest.fixture(autouse=True)
    def plugged(self, real: bool, monkeypatch: pytest.MonkeyPatch) -> Any:
        if real:
            real_rtx()
        else:
            plug_in(monkeypatch, Machine())
        yield
        unplug()

    def test_a_sound_one_builds(self, folder: Path) -> None:
        rewrite(folder, "classifier.onnx", small_graph("batch"))
        assert len(build_engines(folder, graphs=["classifier"])) == 1

    def test_a_broken_file(self, folder: Path) -> None:
        data = small_graph("batch")
        broken = onnx.load_from_string(data)
        broken.graph.node[0].input[0] = "nothing"
        rewrite(folder, "classifier.onnx", broken.SerializeToString())
        with pytest.raises(EdgepureError, match="classifier"):  # TensorRT says what, each version in its own words
            build_engines(folder, graphs=["classifier"])
        assert not list(folder.glob("engines/**/*.plan"))

    def test_a_batch_that_was_fixed_at_export(self, folder: Path) -> None:
        rewrite(folder, "classifier.onnx", small_graph(2))
        with raises_code("E-engine-tensor"):
            build_engines(folder, graphs=["classifier"])

    def test_an_operator_without_a_kernel(self, folder: Path) -> None:
        rewrite(folder, "classifier.onnx", small_graph("batch", "Bernoulli"))
        with raises_code("E-tensorrt"):
            build_engines(folder, graphs=["classifier"])


# ---- the real TensorRT for RTX ---------------------------------------------------------------------------------------


def test_the_real_builder_builds_the_digits(folder: Path) -> None:
    """Every graph of the shipped bundle, without a GPU, for the GPUs that TensorRT for RTX knows."""
    real_rtx()
    seen: list[float] = []
    built = build_engines(folder, batches=(1, 8), on_progress=lambda share, what: seen.append(share))
    assert [engine.graph for engine in built] == GRAPHS
    assert all(engine.bytes > 100_000 and not engine.reused for engine in built)
    assert built[0].key.targets == ("sm80", "sm86", "sm89", "sm120")
    assert built[0].key.flags == ("STRONGLY_TYPED", "REQUIRE_USER_ALLOCATION")
    assert built[0].path.parent.name.startswith("tensorrt_rtx-1.")
    assert seen == sorted(seen) and len(set(seen)) > 20
    assert all(engine.reused for engine in build_engines(folder, batches=(1, 8)))
    (one,) = build_engines(folder, batches=(1,), targets=["SM86"], graphs=["unet"])
    assert one.key.targets == ("sm86",) and one.bytes < built[3].bytes
    with raises_code("E-build-target"):
        build_engines(folder, targets=["sm87"])
    with raises_code("E-build-version-compatible"):
        build_engines(folder, version_compatible=True)
    with raises_code("E-build-timing-cache-none"):
        build_engines(folder, timing_cache=folder / "cache")
