"""What this machine has for running bundles, gathered once. `edgepure doctor` prints it.

Engines are tried, not believed: ONNX Runtime lists providers whose libraries do not load, and falls back to the CPU
in silence. Here each engine has to run a graph of one node, and a session is asked what it used.
"""

from __future__ import annotations

import importlib
import importlib.util
import platform
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .engines.kind import Kind, Opening, Probe
from .engines.kinds import ONNXRUNTIME, kind_of, providers
from .errors import EdgepureError, ProviderError
from .machine import jetson as jetsons
from .machine import nvidia
from .machine.install import CUDA_BINDINGS, driver_line
from .machine.jetson import Jetson
from .machine.memory import memory
from .machine.nvidia import Driver
from .machine.packages import installed_package, package_version
from .machine.processor import cpu_features, cpu_name, usable_cores


@dataclass(frozen=True)
class ProviderStatus:
    """A provider, or a part that several of them need.

    Attributes:
        name: as ``--provider`` takes it; or of the part.
        engine: what people call its engine.
        version: of its package; None if it is not installed.
        works: it ran a graph.
        builds: it builds engines, which TensorRT for RTX does without a GPU too.
        detail: why it does not work; of OpenVINO that works, what the processor has for bf16 and int8.
        install: the line that would help; empty if there is none.
    """

    name: str
    engine: str
    version: str | None
    works: bool
    builds: bool = False
    detail: str = ""
    install: str = ""


@dataclass(frozen=True)
class Environment:
    """Everything that decides what a bundle can run on here.

    Attributes:
        providers: every engine, those of other packages included.
        parts: what engines on a GPU need besides.
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
    parts: tuple[ProviderStatus, ...]
    cpu: str
    cores: int
    features: tuple[str, ...]
    memory_total: int | None
    memory_available: int | None
    driver: Driver
    jetson: Jetson | None
    torch: bool
    demo_bundle: str | None

    def __bool__(self) -> bool:
        """True if at least one engine works."""
        return any(provider.works for provider in self.providers)

    def advice(self) -> list[str]:
        """For each thing that is missing, one line: what, why and how to get it."""
        lines = []
        if not self.driver and (install := driver_line(self.jetson, self.driver)):
            lines.append(f"driver: {self.driver.fault}; {install}")
        found = (*self.providers, *self.parts)
        lines += [f"{part.name}: {part.detail}; {part.install}" for part in found if not part.works and part.install]
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        data = {**asdict(self), "ok": bool(self), "advice": self.advice()}
        if self.jetson is not None:
            data["jetson"]["jetpack"] = self.jetson.jetpack
        return data


def doctor() -> Environment:
    """Look around. Takes a second, or some more where TensorRT is installed; changes nothing, and never fails."""
    driver, jetson = nvidia.find(), jetsons.find()
    total, available = memory()
    return Environment(
        edgepure=package_version("edgepure") or "not installed (running from a source folder)",
        python=platform.python_version(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        numpy=package_version("numpy") or "unknown",
        onnxruntime=_onnxruntime_version(),
        providers=tuple(provider_status(name, driver, jetson) for name in providers()),
        parts=(_bindings(driver, jetson),),
        cpu=cpu_name(),
        cores=usable_cores(),
        features=cpu_features(),
        memory_total=total,
        memory_available=available,
        driver=driver,
        jetson=jetson,
        torch=importlib.util.find_spec("torch") is not None,
        demo_bundle=_demo_bundle(),
    )


def provider_status(name: str, driver: Driver, jetson: Jetson | None) -> ProviderStatus:
    """Try a provider. Never fails."""
    try:
        kind = kind_of(name)
    except ProviderError as error:  # of another package
        return ProviderStatus(name, name, None, False, detail=str(error))
    try:
        found = kind.probe(driver) or _opened(kind)
    except Exception as error:  # somebody else's code raises anything
        detail = str(error) if isinstance(error, EdgepureError) else f"{type(error).__name__}: {error}"
        found = Probe(kind.version(), False, detail=" ".join(detail.split())[:300])
    install = kind.install.on(jetson, driver) if not found.works and found.installable else ""
    return ProviderStatus(name, kind.title, found.version, found.works, found.builds, found.detail, install)


def _opened(kind: Kind) -> Probe:
    """Open a graph of one node as the engine opens any other, and run it."""
    from .engines.tiny import EXPECTED, FEED, TINY_GRAPH

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tiny.onnx"
        path.write_bytes(TINY_GRAPH)
        with kind.open(Opening(kind, path, threads=1)) as engine:
            (result,) = engine.run(FEED).values()
    works = result.tolist() == EXPECTED.tolist()
    return Probe(kind.version(), works, detail="" if works else f"computed {result.tolist()} for 1 + 1")


def _bindings(driver: Driver, jetson: Jetson | None) -> ProviderStatus:
    """Memory, streams and graphs of every engine on a GPU go through these."""
    name, title, version = "cuda.bindings", "cuda-bindings", package_version("cuda-bindings")
    install = CUDA_BINDINGS.on(jetson, driver)
    if version is None:
        return ProviderStatus(name, title, None, False, detail="not installed", install=install)
    if not driver:
        return ProviderStatus(name, title, version, False, detail=driver.fault)
    try:
        runtime = importlib.import_module("cuda.bindings.runtime")
        code, count = runtime.cudaGetDeviceCount()
    except Exception as error:  # a version that does not fit the driver
        detail = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return ProviderStatus(name, title, version, False, detail=f"cannot be used ({detail})", install=install)
    if int(code) != 0 or count < 1:
        return ProviderStatus(name, title, version, False, detail=f"finds no GPU ({code.name})", install=install)
    return ProviderStatus(name, title, version, True)


def _demo_bundle() -> str | None:
    folder = Path(__file__).resolve().parent / "demo" / "data" / "digits"
    return str(folder) if (folder / "bundle.json").is_file() else None


def _onnxruntime_version() -> str | None:
    found = installed_package(*ONNXRUNTIME)
    return None if found is None else f"{found[1]} ({found[0]})"
