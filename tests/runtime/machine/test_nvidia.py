"""The driver is asked through libcuda; a stand-in of that library answers here."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

import pytest

from edgepure.machine import nvidia

OUT_OF_DATE = 35


class Libcuda:
    """What `edgepure.machine.nvidia` uses of libcuda, for GPUs of our choice."""

    def __init__(self, *gpus: nvidia.Gpu, init: int = 0, version: int = 13000) -> None:
        self.gpus, self.init, self.version = gpus, init, version

    def cuDriverGetVersion(self, out: Any) -> int:  # noqa: N802
        out._obj.value = self.version
        return 0

    def cuInit(self, flags: int) -> int:  # noqa: N802
        return self.init

    def cuDeviceGetCount(self, out: Any) -> int:  # noqa: N802
        out._obj.value = len(self.gpus)
        return 0

    def cuDeviceGet(self, out: Any, index: int) -> int:  # noqa: N802
        out._obj.value = index
        return 0

    def cuDeviceGetName(self, out: Any, length: int, device: Any) -> int:  # noqa: N802
        out.value = self.gpus[device.value].name.encode()[: length - 1]
        return 0

    def cuDeviceTotalMem_v2(self, out: Any, device: Any) -> int:  # noqa: N802
        out._obj.value = self.gpus[device.value].memory
        return 0

    def cuDeviceGetAttribute(self, out: Any, attribute: int, device: Any) -> int:  # noqa: N802
        major, minor = self.gpus[device.value].compute_capability.split(".")
        out._obj.value = int({75: major, 76: minor}[attribute])
        return 0

    def cuGetErrorString(self, code: int, out: Any) -> int:  # noqa: N802
        out._obj.value = b"CUDA driver version is insufficient" if code == OUT_OF_DATE else None
        return 0


GPUS = (nvidia.Gpu("NVIDIA H200", "9.0", 150_000_000_000), nvidia.Gpu("Orin", "8.7", 64_000_000_000))


def test_the_stand_in_takes_what_ctypes_gives() -> None:
    number = ctypes.c_int()
    Libcuda().cuDriverGetVersion(ctypes.byref(number))
    assert number.value == 13000


def test_gpus_as_the_driver_names_them() -> None:
    driver = nvidia.ask(Libcuda(*GPUS, version=12060), "540.4.0")
    assert driver
    assert driver == nvidia.Driver("540.4.0", "12.6", GPUS)


def test_a_driver_that_refuses() -> None:
    driver = nvidia.ask(Libcuda(*GPUS, init=OUT_OF_DATE))
    assert not driver
    assert driver.gpus == ()
    assert driver.fault == "the driver refuses to start: CUDA driver version is insufficient (CUDA error 35)"
    assert "unknown error (CUDA error 999)" in nvidia.ask(Libcuda(init=999)).fault


def test_a_driver_without_a_gpu() -> None:
    driver = nvidia.ask(Libcuda())
    assert not driver and driver.cuda == "13.0"
    assert "shows this process no GPU" in driver.fault


@pytest.fixture
def _no_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No libcuda, and none of this machine's programs."""

    def refuse(name: str) -> Any:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))


@pytest.mark.usefixtures("_no_library")
@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "no NVIDIA driver on this machine"),
        ({".dockerenv": ""}, "no NVIDIA driver in this container"),
        ({"sys/bus/pci/devices/0000:01:00.0/vendor": "0x10de\n"}, "there is an NVIDIA card, but no driver"),
        ({"sys/bus/pci/devices/0000:00:02.0/vendor": "0x8086\n"}, "no NVIDIA driver on this machine"),
    ],
)
def test_why_there_is_no_driver(files: dict[str, str], words: str, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    driver = nvidia.find(tmp_path)
    assert not driver
    assert words in driver.fault


@pytest.mark.usefixtures("_no_library")
@pytest.mark.parametrize(
    "line",
    [
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build  (dvs-builder)",
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.95.05  Wed Oct  1 00:00:00 UTC 2025",
    ],
)
def test_the_version_from_the_kernel_module(line: str, tmp_path: Path) -> None:
    (tmp_path / "proc" / "driver" / "nvidia").mkdir(parents=True)
    (tmp_path / "proc" / "driver" / "nvidia" / "version").write_text(f"{line}\nGCC version: 12.2.0\n")
    driver = nvidia.find(tmp_path)
    assert driver.version == "580.95.05"
    assert "driver 580.95.05 is loaded, but its library libcuda.so.1 was not found" in driver.fault


@pytest.mark.parametrize(("said", "version"), [("580.95.05", "580.95.05"), ("NVIDIA-SMI has failed", None)])
def test_the_version_from_nvidia_smi(
    said: str, version: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\necho '{said}'\necho '{said}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert nvidia._version(tmp_path) == version
