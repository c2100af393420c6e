"""What this machine has for running bundles, gathered once. `edgepure doctor` prints it.

Providers are tried, not believed: ONNX Runtime lists providers whose libraries do not load, and falls back to the CPU
in silence. Here each one has to run a graph of one node, and the session is asked what it used.
"""

from __future__ import annotations

import ctypes.util
import importlib
import importlib.util
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

#: A graph ``y = x + x`` for float32 ``x [2]``: opset 13, IR version 7, as an ONNX protobuf.
TINY_GRAPH = bytes.fromhex(
    "08073a350a0e0a01780a017812017922034164641201675a0f0a0178120a0a08080112040a020802620f0a0179120a0a08080112040a02"
    "080242040a00100d"
)
#: CPU features that decide how fast a convolution runs, as Linux spells them.
FEATURES = (
    "sse4_2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16",
    "asimd", "asimdhp", "asimddp", "bf16", "i8mm", "sve",
)  # fmt: skip


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
    """An optional Python module. ``version`` is None if it is not installed; ``detail`` says why an import failed."""

    name: str
    version: str | None
    works: bool
    detail: str = ""
    install: str = ""


@dataclass(frozen=True)
class Environment:
    """Everything that decides what a bundle can run on here.

    Attributes:
        cores: CPU cores that this process may use.
        memory_total, memory_available: bytes; None where the system does not say.
        nvidia_driver: version of the NVIDIA driver; None without one.
        gpus: names and memory as nvidia-smi gives them.
        l4t: first line of /etc/nv_tegra_release on a Jetson.
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
    nvidia_driver: str | None
    gpus: tuple[str, ...]
    l4t: str | None
    modules: tuple[ModuleStatus, ...]
    torch: bool
    demo_bundle: str | None

    def __bool__(self) -> bool:
        """True if at least one engine works."""
        return any(p.works for p in self.providers)

    def advice(self) -> list[str]:
        """For each thing that is missing, one line: what, why and how to get it."""
        found: list[ProviderStatus | ModuleStatus] = [*self.providers, *self.modules]
        return [f"{part.name}: {part.detail}; {part.install}" for part in found if not part.works and part.install]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**asdict(self), "ok": bool(self), "advice": self.advice()}


def gather() -> Environment:
    """Look around. Takes about a second, changes nothing, and never fails."""
    driver, gpus = _nvidia()
    l4t = _first_line(Path("/etc/nv_tegra_release"))
    providers = tuple(_providers(driver is not None or l4t is not None))
    total, available = _memory()
    return Environment(
        edgepure=_version("edgepure") or "not installed (running from a source folder)",
        python=platform.python_version(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        numpy=_version("numpy") or "unknown",
        onnxruntime=_onnxruntime_version(),
        providers=providers,
        cpu=_cpu_name(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        features=_features(),
        memory_total=total,
        memory_available=available,
        nvidia_driver=driver,
        gpus=gpus,
        l4t=l4t,
        modules=tuple(_modules(gpu=driver is not None, jetson=l4t is not None)),
        torch=importlib.util.find_spec("torch") is not None,
        demo_bundle=_demo_bundle(),
    )


def try_provider(onnxruntime_name: str) -> str | None:
    """Run one node on a provider of ONNX Runtime. None if it worked, else why it did not."""
    import numpy as np
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        session = ort.InferenceSession(TINY_GRAPH, options, providers=[onnxruntime_name])
        active = list(session.get_providers())
        if not active or active[0] != onnxruntime_name:
            return f"did not start, ONNX Runtime took {', '.join(active) or 'nothing'} instead"
        (result,) = session.run(None, {"x": np.ones(2, np.float32)})
    except Exception as error:  # ONNX Runtime raises many unrelated classes
        return f"failed: {(str(error).strip().splitlines() or [type(error).__name__])[0][:200]}"
    return None if np.array_equal(result, np.full(2, 2.0)) else f"computed {result.tolist()} for 1 + 1"


def _providers(nvidia: bool) -> Iterator[ProviderStatus]:
    from .engines.onnxruntime_engine import PROVIDERS

    for name, long_name in PROVIDERS.items():
        gpu = name != "cpu"
        if gpu and not nvidia:
            reason, install = "no NVIDIA driver on this machine", ""
        else:
            reason, install = "", f"pip install edgepure[{'cuda' if gpu else 'cpu'}]"
        detail = _provider_fault(long_name)
        if detail is None:
            yield ProviderStatus(name, long_name, True)
        else:
            yield ProviderStatus(name, long_name, False, f"{detail}{'; ' if reason else ''}{reason}", install)


def _provider_fault(long_name: str) -> str | None:
    try:
        import onnxruntime as ort
    except Exception as error:  # a broken installation raises anything
        return f"onnxruntime cannot be imported ({error})"
    if long_name not in ort.get_available_providers():
        return f"not part of the installed onnxruntime {ort.__version__}"
    return try_provider(long_name)


def _modules(*, gpu: bool, jetson: bool) -> Iterator[ModuleStatus]:
    tensorrt = "apt install nvidia-jetpack, and a venv made with --system-site-packages" if jetson else (
        "pip install edgepure[tensorrt]" if gpu else "")  # fmt: skip
    wanted = (
        ("tensorrt", tensorrt),
        ("tensorrt_rtx", "pip install edgepure[rtx]" if gpu and not jetson else ""),
    )
    for name, install in wanted:
        if importlib.util.find_spec(name) is None:
            yield ModuleStatus(name, None, False, "not installed", install)
            continue
        try:
            module = importlib.import_module(name)
        except Exception as error:  # a missing shared library
            detail = (str(error).strip().splitlines() or [type(error).__name__])[0]
            yield ModuleStatus(name, _version(name), False, f"installed, but cannot be imported ({detail})", install)
        else:
            yield ModuleStatus(name, str(getattr(module, "__version__", _version(name) or "unknown")), True)


def _nvidia() -> tuple[str | None, tuple[str, ...]]:
    program = shutil.which("nvidia-smi")
    if program is not None:
        query = [program, "--query-gpu=driver_version,name,memory.total", "--format=csv,noheader"]
        try:
            lines = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout.splitlines()
        except (OSError, subprocess.SubprocessError):
            lines = []
        if lines:
            driver = lines[0].split(",")[0].strip()
            return driver, tuple(", ".join(p.strip() for p in line.split(",")[1:]) for line in lines)
    text = _first_line(Path("/proc/driver/nvidia/version"))
    if text is not None:
        return text, ()
    return ("libcuda without nvidia-smi", ()) if ctypes.util.find_library("cuda") else (None, ())


def _demo_bundle() -> str | None:
    folder = Path(__file__).resolve().parent / "data" / "digits"
    return str(folder) if (folder / "bundle.json").is_file() else None


def _onnxruntime_version() -> str | None:
    for name in ("onnxruntime", "onnxruntime-gpu"):
        if (found := _version(name)) is not None:
            return f"{found} ({name})"
    return None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _cpu_name() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _features() -> tuple[str, ...]:
    flags = set((_cpuinfo("flags") or _cpuinfo("Features") or "").split())
    return tuple(name for name in FEATURES if name in flags)


def _cpuinfo(key: str) -> str | None:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                name, _, value = line.partition(":")
                if name.strip() == key:
                    return value.strip()
    except OSError:
        pass
    return None


def _memory() -> tuple[int | None, int | None]:
    values: dict[str, int] = {}
    try:
        with open("/proc/meminfo", encoding="utf-8") as lines:
            for line in lines:
                name, _, rest = line.partition(":")
                values[name] = int(rest.split()[0]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return values.get("MemTotal"), values.get("MemAvailable")


def _first_line(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()[0].strip() or None
    except (OSError, IndexError):
        return None
