"""The real CUDA provider of onnxruntime-gpu on made-up CUDA libraries: what it makes of our graphs and options."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from fake_cuda_libraries import PROVIDER, make_cuda_libraries
from gpu_stand_in import copy_of_digits

import edgepure
from edgepure.bundle.bundle import Bundle
from samples.gpu_check.transfers import ALLOWED, ALLOWED_FOR_KERNELS

NEEDS = "needs onnx-ir (pip install edgepure[export])"
graph_files = pytest.importorskip("edgepure_export.graphs.precision", reason=NEEDS)
variants = pytest.importorskip("samples.gpu_check.variants", reason=NEEDS)

found = importlib.util.find_spec("onnxruntime")
LIBRARY = Path(found.origin or "").parents[1] / PROVIDER if found is not None else Path()
pytestmark = [
    pytest.mark.skipif(not LIBRARY.is_file(), reason="needs onnxruntime-gpu in the place of onnxruntime"),
    pytest.mark.skipif(shutil.which("gcc") is None or shutil.which("nm") is None, reason="needs gcc and nm"),
]
ROWS, SLOTS = 6, 4

#: Opens a graph as edgepure does and executes rows. Arguments: the libraries, the graph, its precision, CUDA graphs,
#: slots, rows.
PROGRAM = """
import ctypes, sys
from types import SimpleNamespace
import numpy as np
from cuda.bindings import driver, nvrtc
from cuda.bindings import runtime as real

libraries, path, precision, graphs = sys.argv[1].split(":"), *sys.argv[2:5]
slots, rows = map(int, sys.argv[5:])
loaded = {name.rsplit("/", 1)[-1]: ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL) for name in libraries}
GIVE = ("cudaMalloc", "cudaMallocHost", "cudaStreamCreateWithFlags", "cudaEventCreateWithFlags", "cudaGetDeviceCount")

class Runtime:
    '''The made-up runtime in the place of the one that is inside cuda-bindings.'''
    def __getattr__(self, name):
        library = next(loaded[found] for found in loaded if "cudart" in found)
        if not hasattr(library, name):
            return getattr(real, name)
        def function(*arguments):
            given = ctypes.c_size_t()
            first = [ctypes.byref(given)] if name in GIVE else []
            code = getattr(library, name)(*first, *(ctypes.c_size_t(int(a)) for a in arguments))
            return (real.cudaError_t(code), *([given.value] if first else []))
        return function

import edgepure.engines.gpu.cuda
import edgepure.engines.gpu.onnxruntime as engine_module
from edgepure.machine import nvidia
from pathlib import Path

gpu = nvidia.Gpu("Made-up GPU", "9.0", 8 << 30)
nvidia.find = lambda: nvidia.Driver("580.95", "13.0", (gpu,))
modules = SimpleNamespace(runtime=Runtime(), driver=driver, nvrtc=nvrtc)
edgepure.engines.gpu.cuda.bindings = lambda: modules
engine_module.load_cuda_libraries = lambda ort: None
import onnxruntime
onnxruntime.set_default_logger_severity(0)
sessions = onnxruntime.InferenceSession
def session(path, settings, **others):
    settings.log_severity_level = 0
    return sessions(path, settings, **others)
onnxruntime.InferenceSession = session
from edgepure.engines.gpu.onnxruntime import CudaEngine, CudaStepper

say = lambda text: print("==", text, file=sys.stderr, flush=True)
ctypes.CDLL(None).setenv(b"CALLS", b"1", 1)
engine = CudaEngine(Path(path), precision=precision, graphs=graphs == "1")
stepper = CudaStepper(engine, slots, noise="host")
image = np.zeros(stepper.image_shape, np.float32)
for slot in range(2):
    stepper.admit(slot, image, image, None)
for row in range(rows):
    say(f"row {row}")
    stepper.step(2)
say("state")
stepper.state(0)
say("run")
engine.run({name: np.zeros((3, *spec.shape[1:]), np.float32) for name, spec in engine.inputs.items()})
say("others")
for active in (1, 3, 1, 3):
    stepper.step(active)
say("again")
stepper.step(2), stepper.step(2)
say("end")
call = engine.bound(2)
call(), call(), call()
for part in (call, stepper, engine):
    part.close()
say("closed")
"""


@dataclass
class Log:
    """What was said before the first row, in each row, and after."""

    text: str

    def part(self, name: str) -> list[str]:
        inside = self.text.partition(f"== {name}\n")[2].partition("\n== ")[0]
        return inside.splitlines()

    def copies(self, name: str) -> list[tuple[str, int]]:
        return [(kind, int(n)) for kind, n in re.findall(r"^copy (\w+) (\d+)$", "\n".join(self.part(name)), re.M)]


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return make_cuda_libraries(LIBRARY, tmp_path_factory.mktemp("libraries"))


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits bundle in every precision that ONNX Runtime runs on CUDA."""
    folder = copy_of_digits(tmp_path_factory.mktemp("digits"))
    variants.add_half(folder, "fp16", folder.parent)
    variants.add_int8(folder, folder.parent)
    return folder


def run(libraries: list[Path], digits: Path, precision: str, graphs: bool) -> Log:
    path = Bundle.open(digits).graph_path("step", precision)
    places = [str(libraries[0].parent), os.environ.get("LD_LIBRARY_PATH", "")]
    paths = [str(Path(edgepure.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            PROGRAM,
            ":".join(map(str, libraries)),
            str(path),
            precision,
            str(int(graphs)),
            str(SLOTS),
            str(ROWS),
        ],
        env={**os.environ, "LD_LIBRARY_PATH": ":".join(places), "PYTHONPATH": ":".join(paths)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0 and "== closed\n" in done.stderr, done.stderr[-3000:]
    return Log(re.sub(r"\x1b\[[0-9;]*m", "", done.stderr))


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_rows_of_every_precision(libraries: list[Path], digits: Path, precision: str) -> None:
    log = run(libraries, digits, precision, graphs=False)
    assert "All nodes placed on [CUDAExecutionProvider]" in log.text
    model = graph_files.load_graph(Bundle.open(digits).graph_path("step", precision))
    convolutions = sum(node.op_type in ("Conv", "ConvTranspose") for node in model.graph)
    # fp32 is to be fp32; everything else is to be fast
    refused = sum("No execution plans support the graph" in line for line in log.part("row 0"))
    assert refused == (convolutions if precision == "fp32" else 0)
    for row in range(1, ROWS):
        copies = log.copies(f"row {row}")
        assert {kind for kind, _ in copies} == {"HtoD"} and copies[0][1] == SLOTS * 22 * 4
        assert sum(n for _, n in copies) <= ALLOWED * SLOTS + ALLOWED_FOR_KERNELS
        called = set(log.part(f"row {row}"))
        assert not called & {"cudaStreamSynchronize", "cudaDeviceSynchronize"}, "the host is ahead of the GPU"
        assert not any(line.startswith("cudaMalloc") for line in called)
    assert log.copies("state") == [("DtoH", 16 * 16 * 4)]
    assert ("DtoH", 3 * 16 * 16 * 4) in log.copies("run")


def test_rows_as_graphs(libraries: list[Path], digits: Path) -> None:
    """Once for each direction between the two states; then a row is a copy and a launch."""
    log = run(libraries, digits, "fp16", graphs=True)
    table = f"copy HtoD {SLOTS * 22 * 4}"
    for row in range(ROWS):
        lines = log.part(f"row {row}")
        assert lines.count("capture in mode 0") == (1 if row < 2 else 0), "the mode for which docs/tensorrt.md warns"
        assert lines.count("cudaGraphLaunch") == 1
        if row >= 2:
            calls = [line for line in lines if re.fullmatch(r"cuda\w+|copy .*", line)]
            assert calls == ["cudaEventSynchronize", table, "cudaEventRecord", "cudaGraphLaunch"]
    assert "cudaGraphLaunch" not in log.part("run"), "a plain call is no graph"
    again = [line for line in log.part("again") if line.startswith("again")]
    assert again == ["again 128", *["again 64"] * 3] * 2, "parameters of kernels are still where they were"


def test_the_other_graphs_are_on_the_gpu(libraries: list[Path], digits: Path) -> None:
    """Only sizes are computed on the CPU, and no image goes there and back."""
    code = """
import ctypes, sys
for name in sys.argv[1].split(":"):
    ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
import edgepure, onnxruntime
settings = onnxruntime.SessionOptions()
settings.log_severity_level = 0
onnxruntime.InferenceSession(sys.argv[2], settings, providers=["CUDAExecutionProvider"], enable_fallback=0)
"""
    for graph in ("classifier", "mask", "unet"):
        path = Bundle.open(digits).graph_path(graph)
        done = subprocess.run(
            [sys.executable, "-c", code, ":".join(map(str, libraries)), str(path)],
            env={**os.environ, "LD_LIBRARY_PATH": str(libraries[0].parent)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        placed = re.sub(r"\x1b\[[0-9;]*m", "", done.stderr).partition("Node placements")[2]
        on_cpu = re.findall(r" (\w+) \(", placed.partition("[CPUExecutionProvider]")[2].partition("CUDAExecution")[0])
        assert "[CUDAExecutionProvider]" in placed, done.stderr[-2000:]
        assert set(on_cpu) <= {"Concat"} and "MemcpyToHost" not in placed and "MemcpyFromHost" not in placed
