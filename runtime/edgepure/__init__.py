"""edgepure: diffusion-based adversarial purification on compiled engines, without PyTorch.

>>> import edgepure
>>> with edgepure.load("digits_bundle") as purifier:          # doctest: +SKIP
...     for result in purifier.classify(["seven.png"]):
...         print(result.class_name, result.unet_calls)
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

# From 1.29 on ONNX Runtime reports its sessions, with names and hashes of their models, to its makers over the network
# if this is not set before it is imported. Nothing of a defence is to leave the device.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

#: Public names and the modules they live in. They load when first used, so that `import edgepure` is quick.
_PUBLIC = {
    "load": "purifier",
    "Purifier": "purifier",
    "Bundle": "bundle",
    "Preset": "presets",
    "MaskSpec": "presets",
    "VoteSpec": "presets",
    "SsniSpec": "adaptive",
    "UniformSpec": "methods",
    "HeterogeneousSpec": "methods",
    "RepaintSpec": "methods",
    "GdmpSpec": "methods",
    "GnspSpec": "methods",
    "EpsSpec": "methods",
    "compile_plan": "methods",
    "NoiseSchedule": "schedule",
    "ScheduleSpec": "schedule",
    "Plan": "rows",
    "Row": "rows",
    "SecretNoise": "noise",
    "SeededNoise": "noise",
    "Replay": "noise",
    "Monitor": "monitor",
    "Service": "service",
    "Result": "results",
    "Results": "results",
    "EdgepureError": "errors",
    "verify": "verification",
    "demo_bundle": "demo",
}

__all__ = ["__version__", *_PUBLIC]

if TYPE_CHECKING:
    __version__: str
    from .adaptive import SsniSpec as SsniSpec
    from .bundle import Bundle as Bundle
    from .demo import demo_bundle as demo_bundle
    from .errors import EdgepureError as EdgepureError
    from .methods import EpsSpec as EpsSpec
    from .methods import GdmpSpec as GdmpSpec
    from .methods import GnspSpec as GnspSpec
    from .methods import HeterogeneousSpec as HeterogeneousSpec
    from .methods import RepaintSpec as RepaintSpec
    from .methods import UniformSpec as UniformSpec
    from .methods import compile_plan as compile_plan
    from .monitor import Monitor as Monitor
    from .noise import Replay as Replay
    from .noise import SecretNoise as SecretNoise
    from .noise import SeededNoise as SeededNoise
    from .presets import MaskSpec as MaskSpec
    from .presets import Preset as Preset
    from .presets import VoteSpec as VoteSpec
    from .purifier import Purifier as Purifier
    from .purifier import load as load
    from .results import Result as Result
    from .results import Results as Results
    from .rows import Plan as Plan
    from .rows import Row as Row
    from .schedule import NoiseSchedule as NoiseSchedule
    from .schedule import ScheduleSpec as ScheduleSpec
    from .service import Service as Service
    from .verification import verify as verify


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("edgepure")
    if name in _PUBLIC:
        return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
