"""Running TensorRT engines on the stand-in: the same results as the CPU, and nothing that the real one would refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from codes import raises_code
from fake_cuda import Machine, Misuse
from gpu_stand_in import copy_of_digits, plug_in, unplug, unplug_driver

import edgepure
from edgepure.bundle.bundle import Bundle
from edgepure.engines.tensorrt.build import build_engines
from edgepure.engines.tensorrt.engine import TensorRTEngine, TensorRTStepper
from edgepure.machine.nvidia import Gpu as RealGpu
from edgepure.purify.inflight import InFlight, Job
from edgepure.rows.noise import SeededNoise
from edgepure.rows.replay import Replay

PRESET = {"method": {"method": "heterogeneous", "t_l": 80, "t_s": 40, "stage1_steps": 2, "stage2_steps": 2},
          "mask": {"area": 0.25}}  # fmt: skip


def digits(count: int) -> np.ndarray:
    path = Path(edgepure.__file__).parent / "demo" / "data" / "digits_images.npz"
    with np.load(path) as data:
        key = "images" if "images" in data.files else data.files[0]
        images = data[key][:count].astype(np.float32)
    images = images if images.ndim == 4 else images[:, None]
    return images / max(1.0, float(images.max()))


def on_cpu(folder: Path, images: np.ndarray, **options: Any) -> Any:
    with edgepure.load(folder, threads=1) as purifier:
        return purifier.run(images, PRESET, noise=5, **options)


def assert_same(found: Any, expected: Any) -> None:
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.image, other.image, atol=2e-5)
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-4)
        assert one.label == other.label and one.unet_calls == other.unet_calls


@pytest.mark.parametrize("lazy", [True, False])
@pytest.mark.parametrize("version", ["10.3.0", "11.4.0.106"])
def test_a_purification_is_that_of_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, lazy: bool
) -> None:
    folder, images = copy_of_digits(tmp_path), digits(5)
    machine = Machine(lazy=lazy)
    plug_in(monkeypatch, machine, version=version)
    build_engines(folder, batches=(1, 2, 4))
    with edgepure.load(folder, "tensorrt", slots=3) as purifier:
        found = purifier.run(images, PRESET, votes=2, noise=5)
        stepper = purifier.stepper("step")
        assert isinstance(stepper, TensorRTStepper)
        assert stepper.noise_on_device and stepper.captured > 0 and stepper.not_captured == ""
        assert stepper.capacity == 3 and stepper.lanes == 4
    assert machine.leaks() == {}
    unplug()
    assert_same(found, on_cpu(folder, images, votes=2))


def test_everything_stays_on_the_gpu(built_digits: Path, gpu: Any) -> None:
    """Inside the loop only the coefficients cross the bus, from page-locked memory, and nothing is allocated."""
    images = digits(2)
    with edgepure.load(built_digits, "tensorrt", slots=2) as purifier:
        purifier.run(images, PRESET, noise=1)
        machine, before = gpu.machine, gpu.machine.allocations
        stepper = purifier.stepper("step")
        plan = purifier.plan(PRESET)
        source = SeededNoise(3)
        refs = 2.0 * images - 1.0
        jobs = [Job(plan, source.for_image(plan, i, 0, None, refs[0].shape), ref, None) for i, ref in enumerate(refs)]
        machine.copies.clear()
        launches = machine.launches
        inflight = InFlight(stepper)
        inflight.run(jobs, lambda job, x: None)
        assert machine.launches - launches == inflight.counters.ticks == len(plan.rows)
        row = ("HostToDevice", stepper.lanes * (16 + 6) * 4)  # type: ignore[attr-defined]
        in_loop = machine.copies[3 * len(jobs) : -len(jobs)]  # not the three of each admission, nor the results
        assert [copy for copy in in_loop if copy[0] != "DeviceToDevice"] == [row] * len(plan.rows)
        for _ in range(3):
            purifier.run(images, PRESET)
        assert machine.allocations == before


def test_recorded_noise_comes_from_the_host(built_digits: Path, gpu: Any) -> None:
    images = digits(3)
    generator = np.random.default_rng(0)
    recorded: dict[Any, np.ndarray] = {}

    def recording(draw: Any, image: int) -> np.ndarray:
        key = (repr(draw), image)
        if key not in recorded:
            recorded[key] = generator.standard_normal((1, 16, 16)).astype(np.float32)
        return recorded[key]

    with edgepure.load(built_digits, "tensorrt", slots=2) as purifier:
        found = purifier.run(images, PRESET, noise=Replay(recording))
    with edgepure.load(built_digits, threads=1) as purifier:
        assert_same(found, purifier.run(images, PRESET, noise=Replay(recording)))


def test_without_the_compiler_the_noise_comes_from_the_host(
    built_digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine, images = Machine(nvrtc=False), digits(3)
    plug_in(monkeypatch, machine)
    bundle = Bundle.open(built_digits)
    with edgepure.load(built_digits, "tensorrt", slots=2) as purifier:
        found = purifier.run(images, PRESET, noise=5)
        stepper = purifier.stepper("step")
        assert isinstance(stepper, TensorRTStepper)
        assert not stepper.noise_on_device and "cuda-bindings[all]" in stepper.why_not
    engine = TensorRTEngine(bundle, "step")
    with raises_code("E-package-nvrtc"):
        TensorRTStepper(engine, noise="device")
    engine.close()
    unplug()
    assert_same(found, on_cpu(built_digits, images))


def test_what_cannot_be_captured_is_executed_plainly(built_digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine, images = Machine(captures=False), digits(3)
    plug_in(monkeypatch, machine)
    with edgepure.load(built_digits, "tensorrt", slots=2) as purifier:
        found = purifier.run(images, PRESET, noise=5)
        stepper = purifier.stepper("step")
        assert isinstance(stepper, TensorRTStepper)
        assert stepper.captured == 0 and "Invalidated" in stepper.not_captured
    assert machine.launches == 0 and machine.leaks() == {}
    unplug()
    assert_same(found, on_cpu(built_digits, images))


def test_graphs_can_be_left_out(built_digits: Path, gpu: Any) -> None:
    engine = TensorRTEngine(Bundle.open(built_digits), "step")
    stepper = TensorRTStepper(engine, 2, graphs=False)
    stepper.admit(0, *(np.zeros((1, 16, 16), np.float32),) * 2, None)
    for _ in range(4):
        stepper.step(1)
    assert stepper.captured == 0 and gpu.machine.launches == 0 and stepper.not_captured == ""
    stepper.close()
    engine.close()


@pytest.mark.parametrize("captures", [True, False])
def test_tensorrt_for_rtx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, captures: bool) -> None:
    """Built without a GPU for two targets, run on one of them; the compiled kernels are kept."""
    folder, images, machine = copy_of_digits(tmp_path), digits(3), Machine(captures=captures)
    plug_in(monkeypatch, machine, version="1.7.1", rtx=True)
    build_engines(folder, batches=(1, 2), targets=["sm86", "sm89"])
    with edgepure.load(folder, "tensorrt-rtx", slots=2) as purifier:
        found = purifier.run(images, PRESET, noise=5)
        stepper = purifier.stepper("step")
        assert isinstance(stepper, TensorRTStepper) and bool(stepper.captured) == captures
        assert captures or "cannot be captured" in stepper.not_captured
    assert sorted(p.name for p in folder.glob("engines/*/*.cache")) == [
        f"{graph}.fp32.cache" for graph in ("classifier", "mask", "step")
    ]
    with edgepure.load(folder, "tensorrt-rtx") as purifier:  # with the kernels of the first time
        purifier.run(images[:1], PRESET, noise=5)
    other = RealGpu("Other GPU", "12.0", 8 << 30)
    plug_in(monkeypatch, machine, version="1.7.1", rtx=True, gpu=other)
    with raises_code("E-engine-unbuilt"):
        edgepure.load(folder, "tensorrt-rtx")
    unplug()
    assert_same(found, on_cpu(folder, images))


def test_any_number_of_images_through_fixed_batches(built_digits: Path, gpu: Any) -> None:
    images = digits(11)
    with edgepure.load(built_digits, threads=1) as purifier:
        expected = purifier.logits(images)
    with edgepure.load(built_digits, "tensorrt") as purifier:
        for count in (1, 3, 4, 7, 11):
            np.testing.assert_allclose(purifier.logits(images[:count]), expected[:count], atol=1e-5)


def test_verify_and_bench(built_digits: Path, gpu: Any) -> None:
    from edgepure.measure import bench
    from edgepure.parity.verify import verify

    assert verify(built_digits, "tensorrt")
    with edgepure.load(built_digits, "tensorrt", slots=2) as purifier:
        speeds = bench(purifier, PRESET, batches=(1, 2), repeats=1).speeds
        assert [s.batch for s in speeds] == [1, 2] and all(s.loop_cost > 0 for s in speeds)
        with raises_code("E-engine-batch-range"):
            purifier.engine("unet").bound(3)
    assert gpu.machine.leaks() == {}


def test_noise_written_past_load_noise_is_refused(built_digits: Path, gpu: Any) -> None:
    """A device would not notice what a wrapper writes into the host's array."""
    engine = TensorRTEngine(Bundle.open(built_digits), "step")
    stepper = TensorRTStepper(engine, 2)
    with pytest.raises(ValueError, match="read-only"):
        stepper.noise[0] = 1.0
    stepper.close()
    engine.close()


def test_a_full_gpu(built_digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(monkeypatch, Machine(memory=10_000))
    with raises_code("E-gpu-memory"):
        edgepure.load(built_digits, "tensorrt").run(digits(1), PRESET)
    unplug()


# ---- which engine is loaded ------------------------------------------------------------------------------------------


def test_no_engine_was_built(tmp_path: Path, gpu: Any) -> None:
    folder = copy_of_digits(tmp_path)
    with raises_code("E-engine-unbuilt"):
        edgepure.load(folder, "tensorrt")


def test_an_engine_of_another_version(built_digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(monkeypatch, Machine(), version="11.5.0")
    with raises_code("E-engine-unbuilt"):
        edgepure.load(built_digits, "tensorrt")
    unplug()


def test_a_version_compatible_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, images = copy_of_digits(tmp_path), digits(1)
    plug_in(monkeypatch, Machine(), version="10.3.0")
    build_engines(folder, batches=(1,), version_compatible=True)
    plug_in(monkeypatch, Machine(), version="11.4.0")
    with edgepure.load(folder, "tensorrt") as purifier:
        found = purifier.run(images, PRESET, noise=5)
    plug_in(monkeypatch, Machine(), version="10.2.0")  # older than the engine
    with raises_code("E-engine-unbuilt"):
        edgepure.load(folder, "tensorrt")
    unplug()
    assert_same(found, on_cpu(folder, images))


def test_an_engine_of_another_gpu(built_digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(monkeypatch, Machine(), gpu=RealGpu("Another GPU", "8.9", 8 << 30))
    with raises_code("E-engine-unbuilt"):
        edgepure.load(built_digits, "tensorrt")
    unplug()


def test_a_damaged_engine_is_not_loaded(tmp_path: Path, gpu: Any) -> None:
    folder = copy_of_digits(tmp_path)
    (built,) = build_engines(folder, batches=(1,), graphs=["classifier"])
    data = bytearray(built.path.read_bytes())
    data[-2] ^= 1
    built.path.write_bytes(data)
    with raises_code("E-engine-damaged"):
        edgepure.load(folder, "tensorrt")
    built.path.write_bytes(data[:-5])
    with raises_code("E-engine-unbuilt"):
        edgepure.load(folder, "tensorrt")


def test_an_engine_is_loaded_only_if_the_hashes_hold(tmp_path: Path, gpu: Any) -> None:
    """Even for a bundle that was opened without checking them."""
    folder = copy_of_digits(tmp_path)
    build_engines(folder, batches=(1,))
    weights = folder / "weights.bin"
    data = bytearray(weights.read_bytes())
    data[100] ^= 1
    weights.write_bytes(data)
    with raises_code("E-bundle-hash"):
        edgepure.load(folder, "tensorrt", verify=False)


def test_a_plan_that_tensorrt_refuses(tmp_path: Path, gpu: Any) -> None:
    """Its record fits, but its contents do not: the log says why, in plain words."""
    import hashlib
    import json

    folder = copy_of_digits(tmp_path)
    (built,) = build_engines(folder, batches=(1,), graphs=["classifier"])
    built.path.write_bytes(b"not a plan")
    record = built.path.with_suffix(".json")
    text = json.loads(record.read_text())
    text["plan"] = {"sha256": hashlib.sha256(b"not a plan").hexdigest(), "bytes": 10}
    record.write_text(json.dumps(text))
    with raises_code("E-tensorrt"):
        edgepure.load(folder, "tensorrt")


@pytest.mark.parametrize("provider", ["tensorrt", "tensorrt-rtx"])
def test_without_a_driver_tensorrt_is_never_touched(
    built_digits: Path, monkeypatch: pytest.MonkeyPatch, provider: str
) -> None:
    plug_in(monkeypatch, Machine())
    unplug_driver(monkeypatch, "no driver (libcuda)")
    monkeypatch.setattr("edgepure.engines.tensorrt.engine.import_tensorrt", lambda product: pytest.fail("touched"))
    with raises_code("E-provider-device"):
        edgepure.load(built_digits, provider)
    unplug()


def test_an_unknown_provider(built_digits: Path) -> None:
    with raises_code("E-provider-unknown"):
        edgepure.load(built_digits, "directml")


def test_the_stand_in_notices_a_context_that_outlives_its_engine(built_digits: Path, gpu: Any) -> None:
    engine = TensorRTEngine(Bundle.open(built_digits), "classifier")
    engine.run({"image": digits(1)})
    context = engine._own.context(1)  # type: ignore[union-attr]
    engine._engine = None
    with pytest.raises(Misuse, match="given back too early"):
        context.enqueue()


def test_images_of_different_length_change_their_slots(built_digits: Path, gpu: Any) -> None:
    """Images that finish first are replaced by the last one, with its state, input and mask."""
    bundle, refs = Bundle.open(built_digits), 2.0 * digits(7) - 1.0
    masks = (np.random.default_rng(2).random((7, 1, 16, 16)) > 0.5).astype(np.float32)
    with edgepure.load(built_digits, threads=1) as purifier:
        lengths = [1, 3, 2, 4, 1, 2, 3]
        stages = [{**PRESET["method"], "stage1_steps": n, "stage2_steps": n} for n in lengths]  # type: ignore[dict-item]
        plans = [purifier.plan({**PRESET, "method": method}) for method in stages]
        source = SeededNoise(3)

        def run(stepper: Any) -> dict[int, np.ndarray]:
            results: dict[int, np.ndarray] = {}
            jobs = [
                Job(plan, source.for_image(plan, i, 0, masks[i], refs[i].shape), refs[i], masks[i], tag=i)
                for i, plan in enumerate(plans)
            ]
            InFlight(stepper).run(jobs, lambda job, x: results.update({job.tag: x}))
            return results

        expected = run(purifier.stepper("step"))
        engine = TensorRTEngine(bundle, "step")
        stepper = TensorRTStepper(engine, 4)
        found = run(stepper)
    assert len({len(plan.rows) for plan in plans}) == 4
    for tag, x in expected.items():
        np.testing.assert_allclose(found[tag], x, atol=5e-5)
    stepper.close()
    engine.close()
