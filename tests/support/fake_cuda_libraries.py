"""Made-up CUDA libraries, compiled by gcc: with them the real CUDA provider of onnxruntime-gpu opens and runs graphs.

Device memory is memory of the host, copies and graphs work at once, kernels and products compute nothing. So what ONNX
Runtime makes of our graphs and options can be read off: where nodes are placed, what a call copies, which convolutions
may use the tensor cores, what is captured. Everything that is called is written to stderr where CALLS is set.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from fake_libcuda import compile_c

PROVIDER = "onnxruntime/capi/libonnxruntime_providers_cuda.so"
_START = r"""
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#define SAY(...) do { if (getenv("CALLS")) { fprintf(stderr, __VA_ARGS__); fputc('\n', stderr); } } while (0)
static int made(void **handle) { *handle = calloc(1, 64); return 0; }
"""
#: What has to do something; the rest returns 0. One GPU of compute capability 9.0.
_RUNTIME = r"""
int cudaGetDeviceCount(int *n) { *n = 1; return 0; }
int cudaGetDevice(int *device) { *device = 0; return 0; }
int cudaDriverGetVersion(int *version) { *version = 13000; return 0; }
int cudaRuntimeGetVersion(int *version) { *version = 13000; return 0; }
int cudaDeviceGetAttribute(int *value, int which) { *value = which == 75 ? 9 : which == 76 ? 0 : 1; return 0; }
int cudaGetDeviceProperties(char *p, int device)
{   /* cudaDeviceProp of CUDA 13 */
    memset(p, 0, 1008);
    strcpy(p, "Made-up GPU");
    *(size_t *)(p + 288) = (size_t)8 << 30;  /* totalGlobalMem */
    *(size_t *)(p + 296) = 49152;            /* sharedMemPerBlock */
    *(int *)(p + 304) = 65536;               /* regsPerBlock */
    *(int *)(p + 308) = 32;                  /* warpSize */
    *(int *)(p + 320) = 1024;                /* maxThreadsPerBlock */
    *(int *)(p + 336) = 2147483647;          /* maxGridSize[0] */
    *(int *)(p + 360) = 9;                   /* major; minor is 0 */
    *(int *)(p + 384) = 132;                 /* multiProcessorCount */
    return 0;
}
int cudaMemGetInfo(size_t *available, size_t *total) { *available = *total = (size_t)8 << 30; return 0; }
static int block(void **p, size_t n) { *p = aligned_alloc(256, (n + 255) / 256 * 256); return *p ? 0 : 2; }
int cudaMalloc(void **p, size_t n) { SAY("cudaMalloc %zu", n); return block(p, n); }
int cudaMallocHost(void **p, size_t n) { return block(p, n); }
int cudaHostAlloc(void **p, size_t n, unsigned flags) { return block(p, n); }
int cudaFree(void *p) { free(p); return 0; }
int cudaFreeHost(void *p) { free(p); return 0; }
int cudaMemset(void *p, int value, size_t n) { memset(p, value, n); return 0; }
int cudaMemsetAsync(void *p, int value, size_t n, void *stream) { memset(p, value, n); return 0; }
/* What a graph copies from the host is read again at every launch: it has to be there still. */
struct copy { const void *source, *seen; size_t n; struct copy *next; };
static struct copy *captured;
static int capturing;
int cudaMemcpyAsync(void *target, const void *source, size_t n, int kind, void *stream)
{
    static const char *const names[] = {"HtoH", "HtoD", "DtoH", "DtoD", "Default"};
    SAY("copy %s %zu", names[kind], n);
    memmove(target, source, n);
    if (capturing && kind == 1) {
        struct copy *copy = malloc(sizeof *copy);
        *copy = (struct copy){source, memcpy(malloc(n), source, n), n, captured};
        captured = copy;
    }
    return 0;
}
int cudaMemcpy(void *target, const void *source, size_t n, int kind)
{
    return cudaMemcpyAsync(target, source, n, kind, 0);
}
int cudaStreamCreate(void **stream) { return made(stream); }
int cudaStreamCreateWithFlags(void **stream, unsigned flags) { return made(stream); }
int cudaEventCreate(void **event) { return made(event); }
int cudaEventCreateWithFlags(void **event, unsigned flags) { return made(event); }
int cudaStreamIsCapturing(void *stream, int *status) { *status = capturing; return 0; }
int cudaStreamBeginCapture(void *stream, int mode)
{
    SAY("capture in mode %d", mode);
    capturing = 1;
    captured = 0;
    return 0;
}
int cudaStreamEndCapture(void *stream, void **graph)
{
    capturing = 0;
    made(graph);
    *(struct copy **)*graph = captured;
    return 0;
}
int cudaGraphInstantiate(void **executable, void *graph, unsigned long long flags)
{
    made(executable);
    *(void **)*executable = *(void **)graph;
    return 0;
}
int cudaGraphLaunch(void *executable, void *stream)
{
    SAY("cudaGraphLaunch");
    for (struct copy *copy = *(struct copy **)executable; copy; copy = copy->next)
        SAY("again %zu%s", copy->n, memcmp(copy->source, copy->seen, copy->n) ? " of something else" : "");
    return 0;
}
int cudaPointerGetAttributes(int *attributes, const void *p) { memset(attributes, 0, 88); *attributes = 2; return 0; }
int cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *n) { *n = 2; return 0; }
const char *cudaGetErrorString(int error) { return "made up"; }
const char *cudaGetErrorName(int error) { return "made up"; }
unsigned __cudaPopCallConfiguration(void) { return 0; }
void **__cudaRegisterFatBinary(void *fat) { static void *handle[8]; return handle; }
"""
#: An engine for everything; its only numerical note is 0, CUDNN_NUMERICAL_NOTE_TENSOR_CORE.
_CUDNN = r"""
size_t cudnnGetVersion(void) { return 91900; }
const char *cudnnGetErrorString(int error) { return "made up"; }
int cudnnBackendCreateDescriptor(int type, void **descriptor) { return made(descriptor); }
int cudnnBackendGetAttribute(void *descriptor, int name, int type, int64_t asked, int64_t *count, void *values)
{
    int descriptors = type == 15;
    if (count) *count = descriptors || asked > 0;
    if (values && asked > 0 && !descriptors) memset(values, 0, 8);
    return 0;
}
"""


def make_cuda_libraries(provider: Path, folder: Path) -> list[Path]:
    """The libraries that this provider loads, in the order in which they have to be loaded."""
    listed = subprocess.run(["nm", "-D", "--with-symbol-versions", str(provider)], capture_output=True, check=True)
    wanted: dict[str, set[str]] = {}
    for name, library in re.findall(r" U (\w+)@+(libcu\w+\.so\.\d+)", listed.stdout.decode()):
        wanted.setdefault(library, set()).add(name)
    cudnn = {name.decode() for name in re.findall(rb"\0(cudnn[A-Z]\w+)(?=\0)", provider.read_bytes())}
    made = [
        _library(folder, library, names, _RUNTIME if "cudart" in library else "", versioned=True)
        for library, names in wanted.items()
    ]
    made.append(_library(folder, "libcurand.so.10", set(), ""))
    made.append(_library(folder, "libcudnn.so.9", cudnn, _CUDNN))
    made.append(_library(folder, "libcuda.so.1", {"cuTensorMapEncodeTiled"}, ""))
    return made


def _library(folder: Path, library: str, names: set[str], text: str, *, versioned: bool = False) -> Path:
    there = set(re.findall(r"(\w+)\([^()]*\)\s*\{", text))
    lines = [_START, text]
    for name in sorted(names - there):
        if re.search(r"^(cublas|cublasLt|cudnn)Create", name):
            lines.append(f"int {name}(void **handle) {{ return made(handle); }}")
        else:
            say = "" if name.startswith("__") or "LastError" in name else f'SAY("{name}"); '
            lines.append(f"int {name}() {{ {say}return 0; }}")
    options = ["-w", "-fno-builtin", f"-Wl,-soname,{library}"]
    if versioned:
        script = folder / f"{library}.map"
        script.write_text(f"{library} {{ global: *; }};\n")
        options.append(f"-Wl,--version-script={script}")
    return compile_c("\n".join(lines), folder / library, *options)
