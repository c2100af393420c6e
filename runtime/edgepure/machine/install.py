"""The line that installs a missing part on this platform, for `edgepure doctor`. Background: docs/jetson.md."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from .jetson import Jetson
from .nvidia import Driver

_JETPACK_5 = "flash JetPack 6 or 7: JetPack 5 has Python 3.8, and edgepure needs 3.10"


@dataclass(frozen=True)
class Installation:
    """How a part is installed.

    Attributes:
        line: on a PC or a server; ``{cuda}`` stands for the first number of its CUDA. Empty: nothing can be done.
        jetson: on a Jetson, where ``{wheels}`` stands for the folder of its wheels; empty: it is of no use there; None:
            the same line.
        gpu: of no use without an NVIDIA GPU.
        python: the first Python for which it exists.
    """

    line: str = ""
    jetson: str | None = None
    gpu: bool = False
    python: tuple[int, int] = (3, 10)

    def on(self, jetson: Jetson | None, driver: Driver) -> str:
        """What to do on a machine; empty where nothing can be done, or where it would be of no use."""
        if jetson is not None and self.jetson is not None:
            line = self.jetson
        else:
            line = self.line
        if not line or not self.gpu:
            return line
        if jetson is None and not driver:
            return ""  # first the driver
        if jetson is not None and jetson.jetpack is not None and jetson.jetpack < 6:
            return _JETPACK_5
        if jetson is None and sys.version_info < self.python:
            line = f"with Python {'.'.join(map(str, self.python))} or later: {line}"
        sixth = jetson is not None and jetson.jetpack == 6
        cuda = (12 if sixth else 13) if jetson is not None else (driver.cuda or "13").split(".")[0]
        return line.format(cuda=cuda, wheels="jp6/cu126" if sixth else "sbsa, for CUDA 13")


#: Memory, streams, graphs and the noise kernel of every engine on an NVIDIA GPU.
CUDA_BINDINGS = Installation('pip install "cuda-bindings=={cuda}.*"', gpu=True)


def driver_line(jetson: Jetson | None, driver: Driver) -> str:
    """What to do for a missing NVIDIA driver; empty where nothing is missing, or nothing can be done."""
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
