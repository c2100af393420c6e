"""The noise kernel: its text compiled as C and compared with `edgepure.rows.noise`; compiled by NVRTC without a GPU."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from codes import raises_code
from cuda.bindings import nvrtc
from fake_libcuda import KERNELS, STREAM, compile_c, make_libcuda

import edgepure
from edgepure.engines.gpu.cuda import DeviceBuffer, Stream, to_device, to_host
from edgepure.engines.gpu.noise import COUNTER_WORDS, SOURCE, THREADS, DeviceNoise, compile_kernels
from edgepure.methods import UniformSpec
from edgepure.rows import philox
from edgepure.rows.noise import SecretNoise, SeededNoise, StreamNoise
from edgepure.rows.philox import Stream as NoiseStream
from edgepure.rows.philox import normals, philox4x32
from edgepure.rows.replay import Replay
from edgepure.rows.schedule import NoiseSchedule

#: The kernels as C, and a loop in the place of the grid.
HARNESS = (
    KERNELS
    + r"""
#define RUN(KERNEL, TYPE) \
void run_##KERNEL(TYPE *out, const unsigned *slots, unsigned elements, \
                  unsigned count, unsigned blocks, unsigned threads) \
{ \
    blockDim.x = threads; \
    for (blockIdx.y = 0; blockIdx.y < count; blockIdx.y++) \
        for (blockIdx.x = 0; blockIdx.x < blocks; blockIdx.x++) \
            for (threadIdx.x = 0; threadIdx.x < threads; threadIdx.x++) \
                KERNEL(out, slots, elements); \
}
RUN(fill_normals, float)
RUN(fill_words, unsigned)
void pairs(const unsigned *words, double *out, unsigned count)
{
    unsigned i;
    for (i = 0; i < count; i++) normal_pair(words[2 * i], words[2 * i + 1], &out[2 * i], &out[2 * i + 1]);
}
"""
)
#: seed, image, stream, vote, row: small, large, and beyond 32 bits.
CASES = [
    (0, 0, NoiseStream.ROW, 0, 0),
    (7, 3, NoiseStream.OUT, 2, 11),
    (2**64 - 1, 2**32 - 1, NoiseStream.PROBE, 2**24 - 1, 2**31),
    (0x0123_4567_89AB_CDEF, 2**33 + 5, NoiseStream.CLOSING, 1, 499),
]


#: As the text stands, and with multiplications and additions fused, as NVRTC does it.
FUSED = ["-ffp-contract=fast", *(["-mfma"] if platform.machine() == "x86_64" else [])]  # Arm always has it


@pytest.fixture(scope="module", params=[["-ffp-contract=off"], FUSED], ids=["plain", "fused"])
def kernels(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    if "-mfma" in request.param and "fma" not in Path("/proc/cpuinfo").read_text().split():
        pytest.skip("this processor cannot fuse multiplications and additions")
    folder = tmp_path_factory.mktemp("kernel")
    return ctypes.CDLL(str(compile_c(HARNESS, folder / "noise.so", "-Werror", *request.param)))


def run_c(kernels: Any, name: str, counters: np.ndarray, elements: int, dtype: type, fill: float = 0) -> np.ndarray:
    """All slots through a kernel with the grid that `DeviceNoise` launches."""
    out = np.full((len(counters), elements), fill, dtype)
    blocks = -(-elements // (4 * THREADS))
    pointer = lambda a: a.ctypes.data_as(ctypes.c_void_p)  # noqa: E731
    getattr(kernels, f"run_{name}")(pointer(out), pointer(counters), elements, len(counters), blocks, THREADS)
    return out


def counter(seed: int, image: int, stream: NoiseStream, vote: int, row: int) -> list[int]:
    return [1, seed & 0xFFFFFFFF, seed >> 32, row, image & 0xFFFFFFFF, (int(stream) << 24) | vote]


@pytest.mark.parametrize("elements", [1, 3, 4, 513, 3 * 32 * 32])
def test_the_integers_are_equal_and_the_normals_agree(kernels: Any, elements: int) -> None:
    counters = np.array([counter(*case) for case in CASES], np.uint32)
    words = run_c(kernels, "fill_words", counters, elements, np.uint32)
    values = run_c(kernels, "fill_normals", counters, elements, np.float32)
    blocks = np.arange(-(-elements // 4), dtype=np.uint64)
    for slot, (seed, image, stream, vote, row) in enumerate(CASES):
        tag = (int(stream) << 24) | vote
        block_counter = np.stack([blocks, *(np.full_like(blocks, n & 0xFFFFFFFF) for n in (row, image, tag))])
        expected = philox4x32(block_counter, (seed & 0xFFFFFFFF, seed >> 32)).T.reshape(-1)[:elements]
        assert np.array_equal(words[slot], expected.astype(np.uint32))
        np.testing.assert_allclose(
            values[slot], normals(seed, image, stream, vote, [row], elements)[0], atol=1e-6, rtol=0
        )


def test_a_slot_without_a_counter_is_left_as_it_is(kernels: Any) -> None:
    counters = np.array([counter(*CASES[0]), [0] * COUNTER_WORDS, counter(*CASES[1])], np.uint32)
    values = run_c(kernels, "fill_normals", counters, 700, np.float32, fill=9.0)
    assert (values[1] == 9.0).all() and (values[[0, 2]] != 9.0).all()


def test_the_normals_agree_over_a_million_values(kernels: Any) -> None:
    """Also where the radius or the sine is near zero."""
    counters, elements = np.array([counter(*CASES[3])], np.uint32), 1 << 20
    seed, image, stream, vote, row = CASES[3]
    found = run_c(kernels, "fill_normals", counters, elements, np.float32)[0]
    assert np.abs(found - normals(seed, image, stream, vote, [row], elements)[0]).max() <= 1e-6


def test_the_transform_at_its_edges(kernels: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The smallest and largest uniforms, and angles at which a sine or cosine is near 0 or 1."""
    edges = [0, 1, 2, 2**30 - 1, 2**30, 2**31 - 1, 2**31, 2**31 + 1, 3 * 2**30, 2**32 - 2, 2**32 - 1]
    words = np.array([(a, b) for a in edges for b in edges], np.uint32)
    found = np.empty(words.shape, np.float64)
    pointer = lambda a: a.ctypes.data_as(ctypes.c_void_p)  # noqa: E731
    kernels.pairs(pointer(words), pointer(found), len(words))
    monkeypatch.setattr(  # a block is two pairs; the second one repeats the first
        philox, "philox4x32", lambda counter, key: np.concatenate([words.T, words.T]).astype(np.uint64)[:, None, :]
    )
    expected = philox.normals(0, 0, NoiseStream.ROW, 0, [0], 4 * len(words)).reshape(-1, 4)[:, :2]
    assert np.isfinite(expected).all() and np.abs(expected).max() > 6.6
    np.testing.assert_allclose(found, expected, atol=1e-6, rtol=0)


def test_nvrtc_compiles_it_for_every_gpu_without_one() -> None:
    """Machine code with both entry points, for every architecture that this NVRTC knows."""
    _, known = nvrtc.nvrtcGetSupportedArchs()
    assert {80, 87, 89, 90} <= set(known)
    for number in known:
        code = compile_kernels(f"sm_{number}")
        assert code.startswith(b"\x7fELF"), number
        assert b".text.fill_normals\0" in code and b".text.fill_words\0" in code, number
    assert b".visible .entry fill_normals(" in compile_kernels("compute_86")


#: Launches the kernels through the real cuda-bindings. Arguments: a file with the kernels, a file for the results.
LAUNCH = """
import json
import sys
import numpy as np
from edgepure.engines.gpu import noise as device_noise
from edgepure.errors import ProviderError
from edgepure.machine.nvidia import Gpu

code, results, stream = open(sys.argv[1], "rb").read(), sys.argv[2], int(sys.argv[3])
device_noise.start_cuda = lambda: None  # the runtime brings its own, private ways into the driver
device_noise.compile_kernels = lambda architecture: code
noise = device_noise.DeviceNoise(Gpu("made up", "9.0", 1))
counters = np.array(json.loads(sys.argv[4]), np.uint32)
words, values = np.zeros((len(counters), 1001), np.uint32), np.zeros((len(counters), 1001), np.float32)
noise.fill_words(words.ctypes.data, counters.ctypes.data, len(counters), 1001, stream)
noise.fill(values.ctypes.data, counters.ctypes.data, len(counters), 1001, stream)
try:
    noise.fill(values.ctypes.data, counters.ctypes.data, 1, 1001, stream + 1)
except ProviderError as error:
    print(error)
noise.close()
np.savez(results, words=words, values=values)
"""


def test_the_real_bindings_give_the_driver_what_is_meant(tmp_path: Path) -> None:
    library = make_libcuda(tmp_path)
    (tmp_path / "code").write_bytes(compile_kernels("sm_90"))
    slots = [counter(*CASES[1]), [0] * COUNTER_WORDS, counter(*CASES[2])]
    command = [sys.executable, "-c", LAUNCH, str(tmp_path / "code"), str(tmp_path / "r.npz"), str(STREAM), str(slots)]
    places = os.pathsep.join([str(Path(edgepure.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "LD_LIBRARY_PATH": str(library.parent), "PYTHONPATH": places}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("CUDA: invalid resource handle; ")
    with np.load(tmp_path / "r.npz") as found:
        for slot, case in ((0, CASES[1]), (2, CASES[2])):
            seed, image, stream, vote, row = case
            expected = normals(seed, image, stream, vote, [row], 1001)[0]
            np.testing.assert_allclose(found["values"][slot], expected, atol=1e-6, rtol=0)
        assert not found["values"][1].any() and not found["words"][1].any()
        assert len(np.unique(found["words"][[0, 2]])) > 1990


def test_a_gpu_that_nvrtc_does_not_know() -> None:
    with raises_code("E-gpu-noise"):
        compile_kernels("sm_12345")


def test_every_mode_of_noise(gpu: Any) -> None:
    """Secret and seeded noise are counters, with the key of the CPU; recorded noise stays on the host."""
    plan = UniformSpec(t_star=40, steps=3).compile(NoiseSchedule.linear(), 16)
    for source in (SecretNoise(), SeededNoise(2**63 + 9)):
        stream = source.for_image(plan, 6, 2, None, (1, 4, 4))
        assert isinstance(stream, StreamNoise) and DeviceNoise.can_make(stream)
        assert DeviceNoise.counter(stream, 1)[1:] == stream.counter(1)
        assert DeviceNoise.counter(stream, 1, out=True)[5] >> 24 == int(NoiseStream.OUT)
    assert stream.counter(1) == (9, 2**31, 1, 6, 2)
    probe = SeededNoise(1).for_image(plan, 0, 0, None, (1, 4, 4), probe=True)
    assert DeviceNoise.counter(probe, 0)[5] == int(NoiseStream.PROBE) << 24
    replayed = Replay(lambda draw, image: np.zeros((1, 4, 4), np.float32)).for_image(plan, 0, 0, None, (1, 4, 4))
    assert not DeviceNoise.can_make(replayed)


def test_launching_on_the_stand_in(gpu: Any) -> None:
    from gpu_stand_in import GPU

    stream = Stream()
    counters = np.array([counter(*CASES[1]), [0] * COUNTER_WORDS], np.uint32)
    where, target = DeviceBuffer(counters.nbytes, stream), DeviceBuffer(2 * 10 * 4, stream)
    to_device(where.pointer, counters, stream)
    noise = DeviceNoise(GPU)
    noise.fill(target.pointer, where.pointer, 2, 10, stream)
    values = np.empty((2, 10), np.float32)
    to_host(values, target.pointer, stream)
    seed, image, kind, vote, row = CASES[1]
    assert np.array_equal(values, [normals(seed, image, kind, vote, [row], 10)[0], np.zeros(10)])
    for part in (noise, where, target, stream):
        part.close()
    assert gpu.machine.leaks() == {}


def test_the_source_names_what_the_module_says() -> None:
    assert f"#define COUNTER_WORDS {COUNTER_WORDS}\n" in SOURCE
