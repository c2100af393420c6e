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
    "load": "purify.purifier",
    "Purifier": "purify.purifier",
    "Bundle": "bundle.bundle",
    "Preset": "methods.presets",
    "MaskSpec": "methods.presets",
    "VoteSpec": "methods.presets",
    "SsniSpec": "methods.ssni",
    "UniformSpec": "methods",
    "HeterogeneousSpec": "methods",
    "RepaintSpec": "methods",
    "GdmpSpec": "methods",
    "GnspSpec": "methods",
    "EpsSpec": "methods",
    "compile_plan": "methods",
    "NoiseSchedule": "rows.schedule",
    "ScheduleSpec": "rows.schedule",
    "Plan": "rows.plan",
    "Row": "rows.plan",
    "SecretNoise": "rows.noise",
    "SeededNoise": "rows.noise",
    "Replay": "rows.noise",
    "Monitor": "purify.monitor",
    "Service": "purify.service",
    "Result": "purify.results",
    "Results": "purify.results",
    "EdgepureError": "errors",
    "verify": "parity.verify",
    "demo_bundle": "demo",
}

__all__ = ["__version__", *_PUBLIC]

if TYPE_CHECKING:
    __version__: str
    from .bundle.bundle import Bundle as Bundle
    from .demo import demo_bundle as demo_bundle
    from .errors import EdgepureError as EdgepureError
    from .methods import EpsSpec as EpsSpec
    from .methods import GdmpSpec as GdmpSpec
    from .methods import GnspSpec as GnspSpec
    from .methods import HeterogeneousSpec as HeterogeneousSpec
    from .methods import RepaintSpec as RepaintSpec
    from .methods import UniformSpec as UniformSpec
    from .methods import compile_plan as compile_plan
    from .methods.presets import MaskSpec as MaskSpec
    from .methods.presets import Preset as Preset
    from .methods.presets import VoteSpec as VoteSpec
    from .methods.ssni import SsniSpec as SsniSpec
    from .parity.verify import verify as verify
    from .purify.monitor import Monitor as Monitor
    from .purify.purifier import Purifier as Purifier
    from .purify.purifier import load as load
    from .purify.results import Result as Result
    from .purify.results import Results as Results
    from .purify.service import Service as Service
    from .rows.noise import Replay as Replay
    from .rows.noise import SecretNoise as SecretNoise
    from .rows.noise import SeededNoise as SeededNoise
    from .rows.plan import Plan as Plan
    from .rows.plan import Row as Row
    from .rows.schedule import NoiseSchedule as NoiseSchedule
    from .rows.schedule import ScheduleSpec as ScheduleSpec


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("edgepure")
    if name in _PUBLIC:
        return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
