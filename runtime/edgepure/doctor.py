"""What this machine has for running bundles, gathered once. `edgepure doctor` prints it.

Engines are tried, not believed: ONNX Runtime lists providers whose libraries do not load, and falls back to the CPU
in silence. Here each engine has to run a graph of one node, and a session is asked what it used.
"""

from __future__ import annotations

import importlib
import importlib.util
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .engines.tensorrt.probe import TINY_GRAPH, probe
from .errors import ProviderError
from .machine import jetson as jetsons
from .machine import nvidia
from .machine.install import install_line
from .machine.jetson import Jetson
from .machine.nvidia import Driver
from .machine.packages import ONNXRUNTIME, installed_package, package_version
from .machine.processor import cpu_features, cpu_name, usable_cores

#: CPU features that multiply integers of 8 bits. OpenVINO says that it runs int8 on every processor.
_INT8 = {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"}


@dataclass(frozen=True)
class ProviderStatus:
    """One inference engine: ``works`` is True only if it ran a graph; otherwise ``detail`` says why not."""

    name: str
    onnxruntime_name: str
    works: bool
    detail: str = ""
    install: str = ""


@dataclass(frozen=True)
class ModuleStatus:
    """OpenVINO, TensorRT, TensorRT for RTX, or the CUDA bindings that both TensorRT run with.

    Attributes:
        version: None if it is not installed.
        works: it did something: OpenVINO on the CPU, the others on a GPU.
        builds: it builds engines, which TensorRT for RTX does without a GPU too.
        detail: why it does not work; of OpenVINO that works, what the processor has for bf16 and int8.
    """

    name: str
    version: str | None
    works: bool
    builds: bool = False
    detail: str = ""
    install: str = ""


@dataclass(frozen=True)
class Environment:
    """Everything that decides what a bundle can run on here.

    Attributes:
        cores: CPU cores that this process may use.
        memory_total, memory_available: bytes; None where the system does not say.
        driver: the NVIDIA driver with its GPUs, or why there is none.
        jetson: None on everything else.
        torch: installed or not; it is never imported, because the runtime does not need it.
        demo_bundle: folder of the digits bundle that comes with the package; None if the installation lacks it.
    """

    edgepure: str
    python: str
    system: str
    numpy: str
    onnxruntime: str | None
    providers: tuple[ProviderStatus, ...]
    cpu: str
    cores: int
    features: tuple[str, ...]
    memory_total: int | None
    memory_available: int | None
    driver: Driver
    jetson: Jetson | None
    modules: tuple[ModuleStatus, ...]
    torch: bool
    demo_bundle: str | None

    def __bool__(self) -> bool:
        """True if at least one engine works."""
        return any(p.works for p in self.providers) or any(m.works for m in self.modules if m.name != "cuda.bindings")

    def advice(self) -> list[str]:
        """For each thing that is missing, one line: what, why and how to get it."""
        lines = []
        if not self.driver and (install := install_line("driver", self.jetson, self.driver)):
            lines.append(f"driver: {self.driver.fault}; {install}")
        found: list[ProviderStatus | ModuleStatus] = [*self.providers, *self.modules]
        lines += [f"{part.name}: {part.detail}; {part.install}" for part in found if not part.works and part.install]
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        data = {**asdict(self), "ok": bool(self), "advice": self.advice()}
        if self.jetson is not None:
            data["jetson"]["jetpack"] = self.jetson.jetpack
        return data


def gather() -> Environment:
    """Look around. Takes a second, or some more where TensorRT is installed; changes nothing, and never fails."""
    driver, jetson = nvidia.find(), jetsons.find()
    total, available = memory()
    return Environment(
        edgepure=package_version("edgepure") or "not installed (running from a source folder)",
        python=platform.python_version(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        numpy=package_version("numpy") or "unknown",
        onnxruntime=_onnxruntime_version(),
        providers=tuple(_providers(driver, jetson)),
        cpu=cpu_name(),
        cores=usable_cores(),
        features=cpu_features(),
        memory_total=total,
        memory_available=available,
        driver=driver,
        jetson=jetson,
        modules=tuple(_modules(driver, jetson)),
        torch=importlib.util.find_spec("torch") is not None,
        demo_bundle=_demo_bundle(),
    )


def try_provider(onnxruntime_name: str) -> str | None:
    """Run one node on a provider of ONNX Runtime. None if it worked, else why it did not."""
    import numpy as np
    import onnxruntime as ort

    from .engines.onnxruntime import gpu_words, load_cuda_libraries, why_inactive

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    on_cuda = onnxruntime_name == "CUDAExecutionProvider"
    try:
        if on_cuda:
            load_cuda_libraries(ort)  # as the engine does
        session = ort.InferenceSession(TINY_GRAPH, options, providers=[onnxruntime_name], enable_fallback=0)
        active = list(session.get_providers())
        if not active or active[0] != onnxruntime_name:
            why = why_inactive(ort) if on_cuda else ""
            return (
                f"did not start{f' ({why})' if why else ''}, ONNX Runtime took {', '.join(active) or 'nothing'} instead"
            )
        (result,) = session.run(None, {"x": np.ones(2, np.float32)})
    except Exception as error:  # ONNX Runtime raises many unrelated classes
        return f"failed: {gpu_words(error)[:200]}"
    if not np.array_equal(result, np.full(2, 2.0)):
        return f"computed {result.tolist()} for 1 + 1"
    return (why_inactive(ort) if on_cuda else "") or None


def try_openvino() -> tuple[str, ...]:
    """Run one node on OpenVINO. What the processor can do by OpenVINO's word: ``BF16``, ``FP32``, ...

    Raises:
        Exception: it did not work, in OpenVINO's words or ours.
    """
    import numpy as np

    from .engines.openvino import import_openvino

    core = import_openvino().Core()
    compiled = core.compile_model(core.read_model(TINY_GRAPH), "CPU", {"INFERENCE_NUM_THREADS": 1})
    result = compiled({"x": np.ones(2, np.float32)})[0]
    if not np.array_equal(result, np.full(2, 2.0)):
        raise RuntimeError(f"computed {result.tolist()} for 1 + 1")
    return tuple(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


def _providers(driver: Driver, jetson: Jetson | None) -> Iterator[ProviderStatus]:
    from .engines.onnxruntime import PROVIDERS

    for name, long_name in PROVIDERS.items():
        detail = _provider_fault(long_name)
        if detail is None:
            yield ProviderStatus(name, long_name, True)
            continue
        gpu = name != "cpu"
        if gpu and not driver:
            detail += f"; {driver.fault}"
        install = install_line("cuda" if gpu else "cpu", jetson, driver)
        yield ProviderStatus(name, long_name, False, detail, install)


def _provider_fault(long_name: str) -> str | None:
    from .engines.onnxruntime import import_onnxruntime

    try:
        ort = import_onnxruntime()
    except ProviderError as error:
        return str(error).partition("; install")[0]  # that line follows, chosen for this machine
    if long_name not in ort.get_available_providers():
        return f"not part of the installed onnxruntime {ort.__version__}"
    return try_provider(long_name)


def _openvino(driver: Driver, jetson: Jetson | None) -> ModuleStatus:
    from .engines.openvino import reason

    name = "openvino"
    if importlib.util.find_spec(name) is None:
        return ModuleStatus(name, None, False, detail="not installed", install=install_line(name, jetson, driver))
    version = package_version(name) or "unknown"
    try:
        capabilities = try_openvino()
    except ProviderError as error:
        detail = str(error).partition("; install")[0]
        return ModuleStatus(name, version, False, detail=detail, install=install_line(name, jetson, driver))
    except Exception as error:  # a broken installation raises anything
        return ModuleStatus(name, version, False, detail=reason(error)[:200])
    features = set(cpu_features())  # none where the system does not list them: then nothing is said of int8
    units = [*(["bf16"] if "BF16" in capabilities else []), *(["int8"] if _INT8 & features else [])]
    words = " and ".join(units) or ("neither bf16 nor int8" if features else "no bf16")
    return ModuleStatus(name, version, True, detail=f"{words} in hardware")


def _modules(driver: Driver, jetson: Jetson | None) -> Iterator[ModuleStatus]:
    yield _openvino(driver, jetson)
    for name, package in (("tensorrt", "tensorrt"), ("tensorrt_rtx", "tensorrt-rtx")):
        install = install_line(name, jetson, driver)
        if importlib.util.find_spec(name) is None:
            yield ModuleStatus(name, None, False, detail="not installed", install=install)
            continue
        found = probe(name, run=bool(driver))
        detail = found.fault or ("" if found.runs else f"builds engines, but cannot run them: {driver.fault}")
        yield ModuleStatus(
            name, found.version or package_version(package) or "unknown", bool(found.runs), found.builds, detail,
            install if found.fault else "",
        )  # fmt: skip
    yield _bindings(driver, jetson)


def _bindings(driver: Driver, jetson: Jetson | None) -> ModuleStatus:
    """TensorRT's memory, streams and graphs go through these."""
    name, installed = "cuda.bindings", package_version("cuda-bindings")
    install = install_line(name, jetson, driver)
    if installed is None:
        return ModuleStatus(name, None, False, detail="not installed", install=install)
    if not driver:
        return ModuleStatus(name, installed, False, detail=driver.fault)
    try:
        runtime = importlib.import_module("cuda.bindings.runtime")
        code, count = runtime.cudaGetDeviceCount()
    except Exception as error:  # a version that does not fit the driver
        detail = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return ModuleStatus(name, installed, False, detail=f"cannot be used ({detail})", install=install)
    if int(code) != 0 or count < 1:
        return ModuleStatus(name, installed, False, detail=f"finds no GPU ({code.name})", install=install)
    return ModuleStatus(name, installed, True)


def _demo_bundle() -> str | None:
    folder = Path(__file__).resolve().parent / "data" / "digits"
    return str(folder) if (folder / "bundle.json").is_file() else None


def _onnxruntime_version() -> str | None:
    found = installed_package(*ONNXRUNTIME)
    return None if found is None else f"{found[1]} ({found[0]})"


def memory() -> tuple[int | None, int | None]:
    """Bytes of memory in all, and available; None where the system does not say."""
    values: dict[str, int] = {}
    try:
        with open("/proc/meminfo", encoding="utf-8") as lines:
            for line in lines:
                name, _, rest = line.partition(":")
                values[name] = int(rest.split()[0]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return values.get("MemTotal"), values.get("MemAvailable")
