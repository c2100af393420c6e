"""The noise kernel: its text compiled as C and compared with `edgepure.noise`; compiled by NVRTC without a GPU."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from typing import Any

import numpy as np
import pytest

from edgepure.engines.cuda import DeviceBuffer, Stream, to_device, to_host
from edgepure.engines.device_noise import COUNTER_WORDS, SOURCE, THREADS, DeviceNoise, compile_kernels
from edgepure.errors import ProviderError
from edgepure.methods import UniformSpec, compile_plan
from edgepure.noise import Replay, SecretNoise, SeededNoise, StreamNoise, normals, philox4x32
from edgepure.noise import Stream as NoiseStream
from edgepure.schedule import NoiseSchedule

#: CUDA's keywords for a C compiler, and a loop in the place of the grid.
HARNESS = r"""
#include <math.h>
#define __device__
#define __global__
struct dim { unsigned x, y; };
static struct dim blockIdx, blockDim, threadIdx;
%s
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
"""
#: seed, image, stream, vote, row: small, large, and beyond 32 bits.
CASES = [
    (0, 0, NoiseStream.ROW, 0, 0),
    (7, 3, NoiseStream.OUT, 2, 11),
    (2**64 - 1, 2**32 - 1, NoiseStream.PROBE, 2**24 - 1, 2**31),
    (0x0123_4567_89AB_CDEF, 2**33 + 5, NoiseStream.CLOSING, 1, 499),
]


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Any:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    folder = tmp_path_factory.mktemp("kernel")
    (folder / "noise.c").write_text(HARNESS % SOURCE.replace('extern "C" ', ""))
    command = [compiler, "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "noise.c", "-o", "noise.so", "-lm"]
    subprocess.run(command, cwd=folder, check=True, timeout=60)
    return ctypes.CDLL(str(folder / "noise.so"))


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


@pytest.mark.parametrize("architecture", ["sm_80", "sm_87", "sm_90", "compute_86"])
def test_nvrtc_compiles_it_without_a_gpu(architecture: str) -> None:
    code = compile_kernels(architecture)
    assert code.startswith(b"\x7fELF" if architecture.startswith("sm") else b"//")
    assert b"fill_normals" in code and b"fill_words" in code


def test_a_gpu_that_nvrtc_does_not_know() -> None:
    with pytest.raises(ProviderError, match="cannot compile the noise kernel for sm_12345"):
        compile_kernels("sm_12345")


def test_every_mode_of_noise(gpu: Any) -> None:
    """Secret and seeded noise are counters, with the key of the CPU; recorded noise stays on the host."""
    plan = compile_plan(UniformSpec(t_star=40, steps=3), NoiseSchedule.linear(), image_elements=16)
    for source in (SecretNoise(), SeededNoise(2**63 + 9)):
        stream = source.for_image(plan, 6, 2, None, (1, 4, 4))
        assert isinstance(stream, StreamNoise) and DeviceNoise.can_make(stream)
        assert source.seed is not None
        assert DeviceNoise.counter(stream, 1) == (1, source.seed & 0xFFFFFFFF, source.seed >> 32, 1, 6, 2)
        assert DeviceNoise.counter(stream, 1, out=True)[5] == (int(NoiseStream.OUT) << 24) | 2
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
