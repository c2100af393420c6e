"""The noise of `edgepure.rows.noise`, made on the GPU: the same counters, the same integers, the same transform.

One small CUDA C kernel, compiled by NVRTC for the GPU that is there. It works in float64 like the definition and
rounds once, so the integers of the stream are equal bit for bit and the normals to 1e-6. Secret and seeded noise differ
only in where the key comes from; replayed noise stays on the host.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import EdgepureError, ProviderError, words_of
from ...machine.nvidia import Gpu
from ...rows.noise import RowNoise, StreamNoise
from .cuda import Stream, bindings, start_cuda

#: 32-bit words that say which noise a slot gets: 1 (0 leaves the slot as it is), then `StreamNoise.counter`.
COUNTER_WORDS = 6
#: Threads of a block; each thread makes four elements.
THREADS = 128

#: Plain C apart from CUDA's keywords, so that a C compiler can check it without a GPU.
SOURCE = r"""
typedef unsigned int u32;
typedef unsigned long long u64;

#define COUNTER_WORDS 6

/* Philox 4x32-10 (Salmon et al. 2011) of one block of four elements. */
static __device__ void philox(u32 block, const u32 *slot, u32 *c)
{
    u32 k0 = slot[1], k1 = slot[2];
    int round;
    c[0] = block; c[1] = slot[3]; c[2] = slot[4]; c[3] = slot[5];
    for (round = 0; round < 10; round++) {
        u64 p0 = (u64)0xD2511F53u * c[0], p1 = (u64)0xCD9E8D57u * c[2];
        u32 c0 = (u32)(p1 >> 32) ^ c[1] ^ k0, c2 = (u32)(p0 >> 32) ^ c[3] ^ k1;
        c[0] = c0; c[1] = (u32)p1; c[2] = c2; c[3] = (u32)p0;
        k0 += 0x9E3779B9u; k1 += 0xBB67AE85u;
    }
}

/* Box-Muller: two 32-bit words to two standard normals, in float64. */
static __device__ void normal_pair(u32 a, u32 b, double *cosine_part, double *sine_part)
{
    double u = ((double)a + 0.5) * 2.3283064365386963e-10, v = ((double)b + 0.5) * 2.3283064365386963e-10;
    double radius = sqrt(-2.0 * log(u)), cosine = cos(6.283185307179586 * v);
    double sine = copysign(sqrt(1.0 - cosine * cosine), 0.5 - v);
    *cosine_part = radius * cosine;
    *sine_part = radius * sine;
}

/* Standard normals for the slots whose first word is not 0.
   out: [gridDim.y, elements], slots: [gridDim.y, COUNTER_WORDS]. */
extern "C" __global__ void fill_normals(float *out, const u32 *slots, u32 elements)
{
    const u32 *slot = slots + COUNTER_WORDS * blockIdx.y;
    u32 block = blockIdx.x * blockDim.x + threadIdx.x, i, c[4];
    double values[4];
    if (slot[0] == 0u || block >= (elements + 3u) / 4u) return;
    philox(block, slot, c);
    normal_pair(c[0], c[1], &values[0], &values[1]);
    normal_pair(c[2], c[3], &values[2], &values[3]);
    out += (u64)elements * blockIdx.y;
    for (i = 0u; i < 4u && 4u * block + i < elements; i++) out[4u * block + i] = (float)values[i];
}

/* The integers themselves, to compare bit for bit. */
extern "C" __global__ void fill_words(u32 *out, const u32 *slots, u32 elements)
{
    const u32 *slot = slots + COUNTER_WORDS * blockIdx.y;
    u32 block = blockIdx.x * blockDim.x + threadIdx.x, i, c[4];
    if (slot[0] == 0u || block >= (elements + 3u) / 4u) return;
    philox(block, slot, c);
    out += (u64)elements * blockIdx.y;
    for (i = 0u; i < 4u && 4u * block + i < elements; i++) out[4u * block + i] = c[i];
}
"""


def compile_kernels(architecture: str) -> bytes:
    """The kernels as machine code (a cubin) for ``sm_89`` and the like, or as PTX for ``compute_89``. Needs no GPU.

    Raises:
        ProviderError: NVRTC is not installed, or cannot compile for this GPU.
    """
    nvrtc = bindings().nvrtc

    def checked(result: tuple[Any, ...]) -> Any:
        if int(result[0]) != 0:
            words = nvrtc.nvrtcGetErrorString(result[0])[1]
            raise ProviderError(
                f"NVRTC: {words.decode() if isinstance(words, bytes) else words}; "
                "`edgepure doctor` shows what works here",
                code="E-gpu-noise",
            )
        return result[1] if len(result) > 1 else None

    try:
        program = checked(nvrtc.nvrtcCreateProgram(SOURCE.encode(), b"edgepure_noise.cu", 0, [], []))
    except EdgepureError:
        raise
    except Exception as error:  # cuda-bindings looks for the library at the first call
        raise ProviderError(
            f'the library NVRTC was not found ({words_of(error)}); install it with `pip install "cuda-bindings[all]"`',
            code="E-package-nvrtc",
        ) from None
    try:
        option = f"--gpu-architecture={architecture}".encode()
        if int(nvrtc.nvrtcCompileProgram(program, 1, [option])[0]) != 0:
            log = bytearray(checked(nvrtc.nvrtcGetProgramLogSize(program)))
            checked(nvrtc.nvrtcGetProgramLog(program, log))
            said = log.decode(errors="replace").strip("\0 \n") or "no reason given"
            raise ProviderError(
                f"NVRTC cannot compile the noise kernel for {architecture}: {said}; "
                "install an NVRTC that knows this GPU",
                code="E-gpu-noise",
            )
        kind = "CUBIN" if architecture.startswith("sm_") else "PTX"
        code = bytearray(checked(getattr(nvrtc, f"nvrtcGet{kind}Size")(program)))
        checked(getattr(nvrtc, f"nvrtcGet{kind}")(program, code))
    finally:
        nvrtc.nvrtcDestroyProgram(program)
    return bytes(code)


class DeviceNoise:
    """The kernels on a GPU."""

    def __init__(self, gpu: Gpu) -> None:
        """Compile and load them.

        Raises:
            ProviderError: NVRTC is missing, or the driver refuses the code.
        """
        start_cuda()
        driver = bindings().driver
        code = compile_kernels(f"sm_{gpu.compute_capability.replace('.', '')}")
        self._module = _checked(driver.cuModuleLoadData(code))
        self._kernels = {
            name: _checked(driver.cuModuleGetFunction(self._module, name.encode()))
            for name in ("fill_normals", "fill_words")
        }

    @staticmethod
    def can_make(noise: RowNoise) -> bool:
        """Whether this noise is a stream of counters; recorded noise is not."""
        return isinstance(noise, StreamNoise)

    @staticmethod
    def counter(noise: RowNoise, row: int, *, out: bool = False) -> tuple[int, ...]:
        """The words of a slot that is to get the noise of a row (with ``out``: the second one)."""
        assert isinstance(noise, StreamNoise)
        return (1, *noise.counter(row, out=out))

    def fill(self, target: int, counters: int, slots: int, elements: int, stream: Stream) -> None:
        """Put normals on the GPU for every slot whose counter begins with 1.

        Args:
            target: address of float32 ``[slots, elements]``.
            counters: address of uint32 ``[slots, COUNTER_WORDS]``.
            slots, elements: sizes.
            stream: what the kernel is put on; it may be captured.
        """
        self._launch("fill_normals", target, counters, slots, elements, stream)

    def fill_words(self, target: int, counters: int, slots: int, elements: int, stream: Stream) -> None:
        """The same for the integers of the stream, uint32: for checks."""
        self._launch("fill_words", target, counters, slots, elements, stream)

    def _launch(self, name: str, target: int, counters: int, slots: int, elements: int, stream: Stream) -> None:
        blocks = -(-elements // (4 * THREADS))
        arguments = ((target, counters, elements), (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint))
        driver = bindings().driver
        on = driver.CUstream(int(stream))
        _checked(driver.cuLaunchKernel(self._kernels[name], blocks, slots, 1, THREADS, 1, 1, 0, on, arguments, 0))

    def close(self) -> None:
        if self._module is not None:
            _checked(bindings().driver.cuModuleUnload(self._module))
            self._module = None


def _checked(result: tuple[Any, ...]) -> Any:
    """The result of a call of the CUDA driver."""
    if int(result[0]) != 0:
        words = bindings().driver.cuGetErrorString(result[0])[1]
        raise ProviderError(
            f"CUDA: {words.decode() if isinstance(words, bytes) else words}; `edgepure doctor` shows what works here",
            code="E-gpu",
        )
    return result[1] if len(result) > 1 else None


def counter_array(slots: int) -> NDArray[np.uint32]:
    """Counters that leave every slot as it is."""
    return np.zeros((slots, COUNTER_WORDS), np.uint32)
