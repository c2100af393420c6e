"""For each part that is missing, the line that fits the platform; none where it would be of no use."""

from __future__ import annotations

import pytest

from edgepure.engines.kinds import KINDS
from edgepure.machine.install import CUDA_BINDINGS, driver_line
from edgepure.machine.jetson import Jetson
from edgepure.machine.nvidia import Driver, Gpu

NONE = Driver(fault="no NVIDIA driver on this machine (libcuda)")
PC = Driver("580.95.05", "13.0", (Gpu("NVIDIA RTX A2000", "8.6", 6 << 30),))
ORIN6 = Driver("540.4.0", "12.6", (Gpu("Orin", "8.7", 8 << 30),))
JETPACK5, JETPACK6, JETPACK7 = Jetson("35.5.0"), Jetson("36.4.3"), Jetson("39.2")


def install_line(part: str, jetson: Jetson | None, driver: Driver) -> str:
    """What is said of the driver, of the bindings, or of a provider."""
    if part == "driver":
        return driver_line(jetson, driver)
    return (CUDA_BINDINGS if part == "cuda.bindings" else KINDS[part].install).on(jetson, driver)


@pytest.mark.parametrize(
    ("part", "jetson", "driver", "words"),
    [
        ("cpu", None, NONE, "edgepure[cpu]"),
        ("openvino", None, NONE, "optional"),
        ("openvino", None, PC, "edgepure[openvino]"),
        ("cuda", None, PC, "edgepure[cuda]"),
        ("tensorrt", None, PC, "edgepure[tensorrt]"),
        ("tensorrt-rtx", None, PC, "edgepure[rtx]"),
        ("cuda.bindings", None, PC, "cuda-bindings==13.*"),
        ("tensorrt", JETPACK6, ORIN6, "--system-site-packages"),
        ("cuda", JETPACK6, ORIN6, "jp6/cu126"),
        ("cuda", JETPACK7, PC, "sbsa"),
        ("cuda", JETPACK7, PC, "pip uninstall onnxruntime, then"),  # both are the module onnxruntime
        ("cuda.bindings", JETPACK6, ORIN6, "cuda-bindings==12.*"),
        ("cuda.bindings", JETPACK7, PC, "cuda-bindings==13.*"),
        ("tensorrt", JETPACK5, ORIN6, "flash JetPack 6 or 7"),
        ("driver", JETPACK6, NONE, "nvidia-jetpack"),
        ("driver", None, Driver(fault="no NVIDIA driver in this container (libcuda)"), "--gpus all"),
        ("driver", JETPACK6, Driver(fault="no NVIDIA driver in this container (libcuda)"), "--runtime nvidia"),
        ("driver", None, Driver(fault="there is an NVIDIA card, but no driver (libcuda)"), "ubuntu-drivers install"),
        ("driver", None, Driver("580.95", fault="the driver refuses to start: ..."), "restart the machine"),
    ],
)
def test_the_line_fits_the_platform(part: str, jetson: Jetson | None, driver: Driver, words: str) -> None:
    assert words in install_line(part, jetson, driver)


@pytest.mark.parametrize(
    ("part", "jetson", "driver"),
    [
        ("driver", None, NONE),  # no NVIDIA card
        ("cuda", None, NONE),
        ("tensorrt", None, NONE),
        ("cuda.bindings", None, NONE),
        ("tensorrt-rtx", JETPACK6, ORIN6),  # it has no engines for Orin
        ("openvino", JETPACK6, ORIN6),
        ("driver", None, PC),
    ],
)
def test_what_would_be_of_no_use_is_not_advised(part: str, jetson: Jetson | None, driver: Driver) -> None:
    assert install_line(part, jetson, driver) == ""
