"""On a real GPU: what the other files of this folder test on stand-ins."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from codes import raises_code
from cuda_checks import FAULTS, check_failed_capture

import edgepure
from edgepure.bundle.bundle import Bundle
from edgepure.engines.gpu import cuda
from edgepure.engines.gpu.noise import DeviceNoise, counter_array
from edgepure.engines.gpu.onnxruntime import CudaEngine, CudaStepper
from edgepure.methods import UniformSpec
from edgepure.purify.inflight import InFlight, Job
from edgepure.rows.noise import SeededNoise
from edgepure.rows.philox import Stream, normals
from edgepure.rows.schedule import NoiseSchedule

pytestmark = pytest.mark.gpu

DIGITS = Path(edgepure.__file__).parent / "demo" / "data" / "digits"
needs_onnxruntime = pytest.mark.skipif(
    "CUDAExecutionProvider" not in onnxruntime.get_available_providers(), reason="needs onnxruntime-gpu"
)


@pytest.fixture
def stream() -> Iterator[cuda.Stream]:
    cuda.require_gpu("this test")
    cuda.start_cuda()
    made = cuda.Stream()
    yield made
    made.close()
    made.close()


def test_memory_there_and_back(stream: cuda.Stream) -> None:
    buffer, pinned = cuda.DeviceBuffer(48, stream), cuda.PinnedArray((3, 4))
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    pinned.array[...] = 7.0
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
    for part in (buffer, pinned, event):
        part.close()
        part.close()


def test_a_full_memory_is_a_sentence(stream: cuda.Stream) -> None:
    with raises_code("E-gpu-memory") as caught:
        cuda.DeviceBuffer(1 << 50, stream)
    assert "MiB are free" in str(caught.value)
    cuda.DeviceBuffer(16, stream).close()  # and CUDA works as before


@pytest.mark.parametrize("fault", FAULTS)
def test_a_graph_that_cannot_be_captured_leaves_nothing(stream: cuda.Stream, fault: str) -> None:
    check_failed_capture(stream, fault)


def test_noise_in_a_graph_follows_its_counters(stream: cuda.Stream) -> None:
    elements, kernels = 1001, DeviceNoise(cuda.require_gpu("this test"))
    plan = UniformSpec(t_star=40, steps=3).compile(NoiseSchedule.linear(), elements)
    counters = counter_array(2)
    where, target = cuda.DeviceBuffer(counters.nbytes, stream), cuda.DeviceBuffer(2 * elements * 4, stream)
    graph = cuda.Graph(stream, lambda: kernels.fill(target.pointer, where.pointer, 2, elements, stream))
    values = np.empty((2, elements), np.float32)
    for row in range(3):
        noise = SeededNoise(9).for_image(plan, 5, 0, None, (1, 7, 143))
        counters[1] = DeviceNoise.counter(noise, row)
        cuda.to_device(where.pointer, counters, stream)
        graph.launch()
        cuda.to_host(values, target.pointer, stream)
        stream.wait()
        np.testing.assert_allclose(values[1], normals(9, 5, Stream.ROW, 0, [row], elements)[0], atol=1e-6, rtol=0)
        assert not values[0].any()
    for part in (graph, kernels, where, target):
        part.close()


@needs_onnxruntime
@pytest.mark.parametrize("graphs", [False, True])
def test_a_loop_on_the_gpu_is_that_of_the_cpu(graphs: bool) -> None:
    """With as many images in flight as leave one after another."""
    schedule, lengths = NoiseSchedule.linear(), (5, 3, 8, 6, 2)
    images = np.random.default_rng(3).uniform(-1, 1, (len(lengths), 1, 16, 16)).astype(np.float32)
    with edgepure.load(DIGITS, threads=1, slots=3) as purifier:
        expected = _loop(purifier.stepper("step"), schedule, lengths, images)
    with CudaEngine(Bundle.open(DIGITS).graph_path("step"), graphs=graphs) as engine:
        assert isinstance(engine, CudaEngine)
        stepper = CudaStepper(engine, 3)
        assert stepper.noise_on_device, stepper.why_not
        for _ in range(2):  # the second time everything is captured
            found = _loop(stepper, schedule, lengths, images)
            for image, wanted in expected.items():
                np.testing.assert_allclose(found[image], wanted, atol=1e-4)
        stepper.close()


def _loop(
    stepper: edgepure.engines.base.Stepper, schedule: NoiseSchedule, lengths: tuple[int, ...], images: np.ndarray
) -> dict[int, np.ndarray]:
    found: dict[int, np.ndarray] = {}
    jobs = []
    for image, rows in enumerate(lengths):
        spec = UniformSpec(t_star=10 * rows, steps=rows, sampler="ddim", eta=1.0)
        plan = spec.compile(schedule, images[0].size)
        jobs.append(Job(plan, SeededNoise(4).for_image(plan, image, 0, None, (1, 16, 16)), images[image], tag=image))
    InFlight(stepper).run(jobs, lambda job, x: found.__setitem__(job.tag, x))
    return found
