"""The NVIDIA driver and the GPUs that it gives to this process, asked of the driver itself.

Only libcuda is used, through ctypes. So this works the same on a PC, a server and a Jetson, in a container and without
any CUDA toolkit, and it is safe where there is no driver: there some of TensorRT's modules end the process.
"""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: CUdevice_attribute: major and minor number of the compute capability.
_MAJOR, _MINOR = 75, 76
#: Vendor number of NVIDIA on the PCI bus.
_VENDOR = "0x10de"


@dataclass(frozen=True)
class Gpu:
    """One GPU: ``compute_capability`` as ``8.7``; ``memory`` in bytes (on a Jetson: shared with the CPU)."""

    name: str
    compute_capability: str
    memory: int


@dataclass(frozen=True)
class Driver:
    """What the driver says.

    Attributes:
        version: of the driver, ``580.95.05``; None where no tool tells it.
        cuda: the newest CUDA that it runs, ``13.0``; None if libcuda does not answer.
        gpus: the GPUs that this process may use.
        fault: why no GPU can be used; empty if one can.
    """

    version: str | None = None
    cuda: str | None = None
    gpus: tuple[Gpu, ...] = ()
    fault: str = ""

    def __bool__(self) -> bool:
        """True if a GPU can be used."""
        return bool(self.gpus) and not self.fault


def find(root: Path = Path("/")) -> Driver:
    """Ask for the driver. Never fails. ``root``: where the system's files are."""
    version = _version(root)
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return Driver(version, fault=_why_no_library(version, root))
    return ask(library, version)


def ask(library: Any, version: str | None = None) -> Driver:
    """Ask libcuda. ``library``: a `ctypes.CDLL` of it."""
    number = ctypes.c_int()
    code = library.cuDriverGetVersion(ctypes.byref(number))
    cuda = f"{number.value // 1000}.{number.value % 1000 // 10}" if code == 0 else None
    code = library.cuInit(0) or library.cuDeviceGetCount(ctypes.byref(number))
    if code != 0:
        return Driver(version, cuda, fault=f"the driver refuses to start: {_error(library, code)}")
    gpus = tuple(_gpu(library, index) for index in range(number.value))
    return Driver(version, cuda, gpus, "" if gpus else "the driver runs, but shows this process no GPU")


def _gpu(library: Any, index: int) -> Gpu:
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    name, memory = ctypes.create_string_buffer(256), ctypes.c_size_t()
    library.cuDeviceGet(ctypes.byref(device), index)
    library.cuDeviceGetName(name, len(name), device)
    library.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    library.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device)
    library.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device)
    return Gpu(name.value.decode(errors="replace"), f"{major.value}.{minor.value}", memory.value)


def _error(library: Any, code: int) -> str:
    text = ctypes.c_char_p()
    library.cuGetErrorString(code, ctypes.byref(text))
    return f"{(text.value or b'unknown error').decode(errors='replace')} (CUDA error {code})"


def _why_no_library(version: str | None, root: Path) -> str:
    if any((root / mark).exists() for mark in (".dockerenv", "run/.containerenv")):
        return "no NVIDIA driver in this container (libcuda)"
    if version is not None:
        return f"driver {version} is loaded, but its library libcuda.so.1 was not found"
    for vendor in (root / "sys" / "bus" / "pci" / "devices").glob("*/vendor"):
        try:
            if vendor.read_text().strip() == _VENDOR:
                return "there is an NVIDIA card, but no driver (libcuda)"
        except OSError:
            continue
    return "no NVIDIA driver on this machine (libcuda)"


def _version(root: Path) -> str | None:
    program = shutil.which("nvidia-smi")
    if program is not None:
        query = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
        try:
            said = subprocess.run(query, capture_output=True, text=True, timeout=10).stdout
        except (OSError, subprocess.SubprocessError):
            said = ""
        if found := re.match(r"\d+(\.\d+)+", said.strip()):
            return found[0]
    try:
        text = (root / "proc" / "driver" / "nvidia" / "version").read_text(errors="replace")
    except OSError:
        return None
    found = re.search(r"\s(\d+\.\d+(?:\.\d+)?)\s", text)
    return found[1] if found else None
