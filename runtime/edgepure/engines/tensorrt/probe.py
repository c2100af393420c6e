"""Does a TensorRT module work here? Builds an engine of one node and, where there is a GPU, runs it.

A module of TensorRT may end the whole process (a missing driver, a mixture of versions), so `probe` asks in another
one: ``python -m edgepure.engines.tensorrt.probe MODULE BUILD|RUN`` prints what it found as JSON.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any

import numpy as np

from ...errors import words_of
from ...machine.nvidia import Driver
from ..kind import Kind, Probe
from ..tiny import EXPECTED, TINY_GRAPH

#: Seconds that the other process may take. Loading TensorRT alone takes several on a small device.
PATIENCE = 180.0


@dataclass(frozen=True)
class Found:
    """What the probe saw. ``runs`` is None where running was not tried; ``fault`` says what went wrong first."""

    version: str | None = None
    builds: bool = False
    runs: bool | None = None
    fault: str = ""


def probe_kind(kind: Kind, driver: Driver) -> Probe:
    """Try the TensorRT of a row; without a GPU, whether it builds."""
    if importlib.util.find_spec(kind.module) is None:
        return Probe(None, False, detail="not installed")
    found = probe(kind.module, run=bool(driver))
    detail = found.fault or ("" if found.runs else f"builds engines, but cannot run them: {driver.fault}")
    version = found.version or kind.version() or "unknown"
    return Probe(version, bool(found.runs), found.builds, detail, installable=bool(found.fault))


def probe(module: str, run: bool) -> Found:
    """Try ``tensorrt`` or ``tensorrt_rtx`` in another process. ``run``: also run the engine, which needs a GPU."""
    command = [sys.executable, "-m", "edgepure.engines.tensorrt.probe", module, "RUN" if run else "BUILD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return Found(fault=f"gave no answer within {PATIENCE:.0f} s")
    except OSError as error:
        return Found(fault=f"could not be tried ({error})")
    lines = done.stdout.strip().splitlines()
    try:
        return Found(**json.loads(lines[-1]))
    except (IndexError, ValueError, TypeError):
        how = f"by signal {-done.returncode}" if done.returncode < 0 else f"with exit code {done.returncode}"
        return Found(fault=f"ended the process that tried it, {how}")


def try_here(module: str, run: bool) -> Found:
    """The same in this process."""
    try:
        trt = import_module(module)
    except Exception as error:  # a missing shared library
        return Found(fault=f"cannot be imported ({words_of(error)})")
    version = str(getattr(trt, "__version__", "unknown"))
    try:
        log = _log(trt)
        plan = _build(trt, log)
    except Exception as error:
        return Found(version, fault=f"cannot build an engine ({words_of(error)})")
    if not run:
        return Found(version, builds=True)
    try:
        result = _run(trt, log, plan)
    except Exception as error:
        return Found(version, True, False, f"cannot run an engine ({words_of(error)})")
    if not np.array_equal(result, EXPECTED):
        return Found(version, True, False, f"computed {result.tolist()} for 1 + 1")
    return Found(version, True, True)


def _log(trt: Any) -> Any:
    """A logger that keeps what TensorRT calls errors."""

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                self.errors.append(msg)

    return Log()


def _build(trt: Any, log: Any) -> bytes:
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)  # the network must outlive it
    plan = (
        builder.build_serialized_network(network, builder.create_builder_config()) if parser.parse(TINY_GRAPH) else None
    )
    if plan is None:
        raise RuntimeError(log.errors[0] if log.errors else "no reason given")
    return bytes(plan)


def _run(trt: Any, log: Any, plan: bytes) -> np.ndarray[Any, Any]:
    """1 + 1, twice."""
    cudart = import_module("cuda.bindings.runtime")

    def checked(result: tuple[Any, ...]) -> Any:
        if int(result[0]) != 0:
            raise RuntimeError(f"{result[0].name}")
        return result[1] if len(result) > 1 else None

    runtime = trt.Runtime(log)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise RuntimeError(log.errors[0] if log.errors else "the engine was refused")
    context = engine.create_execution_context()
    values = np.ones(2, np.float32)
    stream = checked(cudart.cudaStreamCreateWithFlags(cudart.cudaStreamNonBlocking))
    memory = {name: checked(cudart.cudaMalloc(values.nbytes)) for name in ("x", "y")}
    kinds = cudart.cudaMemcpyKind
    checked(cudart.cudaMemcpy(memory["x"], values.ctypes.data, values.nbytes, kinds.cudaMemcpyHostToDevice))
    for name, pointer in memory.items():
        context.set_tensor_address(name, int(pointer))
    if not context.execute_async_v3(int(stream)):
        raise RuntimeError(log.errors[0] if log.errors else "the execution was refused")
    checked(cudart.cudaStreamSynchronize(stream))
    checked(cudart.cudaMemcpy(values.ctypes.data, memory["y"], values.nbytes, kinds.cudaMemcpyDeviceToHost))
    return values


if __name__ == "__main__":
    print(json.dumps(asdict(try_here(sys.argv[1], sys.argv[2] == "RUN"))))
