"""The line that installs a missing part on this platform, for `edgepure doctor`. Background: docs/jetson.md."""

from __future__ import annotations

import sys

from .jetson import Jetson
from .nvidia import Driver

#: TensorRT and CUDA of a Jetson come with its system and are seen by the system's Python only.
_APT = "sudo apt install nvidia-jetpack, then a virtual environment made with `python3 -m venv --system-site-packages`"


def install_line(part: str, jetson: Jetson | None, driver: Driver) -> str:
    """What to do for a missing part; empty where nothing can be done, or where it would be of no use.

    Args:
        part: ``driver``, ``cpu``, ``openvino``, ``cuda``, ``tensorrt``, ``tensorrt_rtx`` or ``cuda.bindings``.
        jetson, driver: of this machine.
    """
    if part == "cpu":
        return "pip install edgepure[cpu]"
    if part == "openvino":
        return (
            "" if jetson is not None else "optional, for its bf16 and int8 on the CPU: pip install edgepure[openvino]"
        )
    if part == "driver":
        return _driver(jetson, driver)
    if jetson is None and not driver:
        return ""  # first the driver
    if jetson is not None:
        return _jetson(part, jetson)
    bindings = f'pip install "cuda-bindings=={driver.cuda.split(".")[0]}.*"' if driver.cuda else ""
    cuda = "pip uninstall onnxruntime, then pip install edgepure[cuda]"
    return {
        "cuda": cuda if sys.version_info >= (3, 11) else f"with Python 3.11 or later: {cuda}",
        "tensorrt": "pip install edgepure[tensorrt]",
        "tensorrt_rtx": "pip install edgepure[rtx]",
        "cuda.bindings": bindings or "pip install edgepure[tensorrt]",
    }[part]


def _driver(jetson: Jetson | None, driver: Driver) -> str:
    if driver:
        return ""
    if "container" in driver.fault:
        option = "--runtime nvidia" if jetson is not None else "--gpus all"
        return f"start it with `docker run {option}` on a machine with the NVIDIA container toolkit"
    if jetson is not None:
        return "its driver is part of the system: sudo apt install nvidia-jetpack, or flash the board again"
    if driver.version is not None or "refuses" in driver.fault:
        return "restart the machine, so that the loaded driver and its libraries are of one version"
    if "card" in driver.fault:
        return "Ubuntu: sudo ubuntu-drivers install; Debian: sudo apt install nvidia-driver; then restart"
    return ""


def _jetson(part: str, jetson: Jetson) -> str:
    if jetson.jetpack is not None and jetson.jetpack < 6:
        return "flash JetPack 6 or 7: JetPack 5 has Python 3.8, and edgepure needs 3.10"
    wheels = "jp6/cu126" if jetson.jetpack == 6 else "sbsa, for CUDA 13"
    return {
        "cuda": "pip uninstall onnxruntime, then the onnxruntime-gpu wheel of the Jetson AI Lab index "
        f"({wheels}); that of PyPI is not for Jetson",
        "tensorrt": _APT,
        "tensorrt_rtx": "",  # it has no engines for Orin and Thor
        "cuda.bindings": f'pip install "cuda-bindings=={12 if jetson.jetpack == 6 else 13}.*"',
    }[part]
