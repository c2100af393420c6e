"""What the numbers were measured on, and what this machine lacks for a section."""

from __future__ import annotations

import importlib.util
import platform
from datetime import datetime, timezone
from typing import Any

from edgepure.engines.kinds import ONNXRUNTIME
from edgepure.machine import jetson, nvidia
from edgepure.machine.packages import installed_package
from edgepure.machine.processor import cpu_name, usable_cores

from .sections import Section

#: Packages whose versions decide the numbers.
PACKAGES = (
    "edgepure",
    "numpy",
    "torch",
    "triton",
    "onnx",
    "tensorrt",
    "tensorrt-rtx",
    "cuda-bindings",
    "nvidia-cuda-nvrtc",
    "nvidia-cudnn-cu13",
    "nvidia-ml-py",
    "diffusers",
)


def describe() -> dict[str, Any]:
    """Device, date and versions."""
    driver, board = nvidia.find(), jetson.find()
    found: dict[str, Any] = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "gpus": [
            f"{g.name}, {g.memory / 2**30:.0f} GiB, compute capability {g.compute_capability}" for g in driver.gpus
        ],
        "driver": driver.version,
        "cuda_of_driver": driver.cuda,
        "jetson": None if board is None else str(board),
        "power_mode": None if board is None else board.power_mode,
        "cpu": f"{cpu_name()}, {usable_cores()} cores",
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }
    packages = [installed_package(*names) for names in (ONNXRUNTIME, *((name,) for name in PACKAGES))]
    found["versions"] = dict(package for package in packages if package is not None)
    return found


def lacks(section: Section, device: str) -> str:
    """Why nothing of a section can run here; empty if it can be tried."""
    if device == "cuda":
        driver = nvidia.find()
        if not driver:
            return f"no CUDA device: {driver.fault}"
    missing = [name for name in section.needs if importlib.util.find_spec(name) is None]
    return f"not installed: {', '.join(missing)}" if missing else ""
