"""A libcuda of our own, compiled by gcc: with it the real cuda-bindings launch the noise kernels, on the CPU.

So what the bindings make of our arguments is what a real driver would get: pointers, sizes, handles, in this order.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from edgepure.engines.gpu.noise import SOURCE

#: CUDA's keywords for a C compiler.
KEYWORDS = r"""
#include <math.h>
#define __device__
#define __global__
struct dim { unsigned x, y; };
static struct dim blockIdx, blockDim, threadIdx;
"""
#: The kernels' own text.
KERNELS = KEYWORDS + SOURCE.replace('extern "C" ', "")
#: The stream that launches have to be put on.
STREAM = 0x5678
_DRIVER = r"""
#include <string.h>
static void *const MODULE = (void *)0x1234;

int cuInit(unsigned flags) { return flags ? 1 : 0; }
int cuDriverGetVersion(int *version) { *version = 12080; return 0; }
int cuGetErrorString(int error, const char **text) { *text = error == 400 ? "invalid resource handle" : "?"; return 0; }
int cuModuleLoadData(void **module, const void *image)
{
    *module = MODULE;
    return memcmp(image, "\177ELF", 4) ? 200 : 0;
}
int cuModuleUnload(void *module) { return module == MODULE ? 0 : 400; }
int cuModuleGetFunction(void **function, void *module, const char *name)
{
    *function = strcmp(name, "fill_words") ? (void *)fill_normals : (void *)fill_words;
    return module != MODULE ? 400 : strncmp(name, "fill_", 5) ? 500 : 0;
}
int cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void *stream, void **arguments, void **extra)
{
    void (*kernel)(void *, const unsigned *, unsigned) = (void (*)(void *, const unsigned *, unsigned))function;
    if (stream != (void *)STREAM) return 400;
    if (gz != 1 || by != 1 || bz != 1 || shared || extra) return 1;
    blockDim.x = bx;
    for (blockIdx.y = 0; blockIdx.y < gy; blockIdx.y++)
        for (blockIdx.x = 0; blockIdx.x < gx; blockIdx.x++)
            for (threadIdx.x = 0; threadIdx.x < bx; threadIdx.x++)
                kernel(*(void **)arguments[0], *(const unsigned **)arguments[1], *(unsigned *)arguments[2]);
    return 0;
}
#define ENTRY(NAME) if (!strcmp(name, #NAME)) *function = (void *)NAME
int cuGetProcAddress_v2(const char *name, void **function, int version, unsigned long long flags, int *status)
{
    *function = 0;
    ENTRY(cuInit); ENTRY(cuDriverGetVersion); ENTRY(cuGetErrorString); ENTRY(cuModuleLoadData);
    ENTRY(cuModuleUnload); ENTRY(cuModuleGetFunction); ENTRY(cuLaunchKernel);
    if (status) *status = *function ? 0 : 1;
    return *function ? 0 : 500;
}
"""


def compile_c(text: str, library: Path, *options: str) -> Path:
    """A shared library of this C text; skips the test where there is no compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    source = library.with_suffix(".c")
    source.write_text(text)
    command = [compiler, "-O2", "-Wall", *options, "-shared", "-fPIC", str(source), "-o", str(library), "-lm"]
    subprocess.run(command, check=True, timeout=60)
    return library


def make_libcuda(folder: Path) -> Path:
    """The library, in a folder that can be put on the loader's path."""
    return compile_c(f"{KERNELS}\n#define STREAM {STREAM}\n{_DRIVER}", folder / "libcuda.so.1")
