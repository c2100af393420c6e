"""From PyTorch networks to a bundle: graphs, the differentiable reference, the bundle writer.

Needs PyTorch and runs on a workstation (`pip install edgepure[export]`). It builds on the runtime package `edgepure`,
which never imports this one.

>>> from edgepure_export import export_bundle
>>> export_bundle(classifier, unet, "bundle", image_size=32, blocks=["layer1", "layer2"])   # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import edgepure  # noqa: F401  before ONNX Runtime, whose telemetry it switches off

#: Public names and the modules they live in. They load when first used: importing this package does not import torch.
_PUBLIC = {
    "export_bundle": "bundle_writer",
    "export_from_sources": "from_sources",
    "ExportedBundle": "from_sources",
    "TorchReference": "reference",
    "load_twin": "twin",
    "OnnxModule": "onnx_module",
    "Purification": "reference",
    "RecordedNoise": "noise_batches",
    "SourceNoise": "noise_batches",
    "draw_noise": "noise_batches",
    "AttentionHead": "attention",
    "MaskModule": "attention",
    "StepModule": "step",
    "LearnedStepModule": "step",
    "UnetModule": "step",
    "export_graph": "graphs",
    "WeightsPool": "weights_pool",
    "Taps": "taps",
    "default_taps": "taps",
    "find_taps": "taps",
    "verify_against_torch": "against_torch",
}

__all__ = list(_PUBLIC)

if TYPE_CHECKING:
    from .against_torch import verify_against_torch as verify_against_torch
    from .attention import AttentionHead as AttentionHead
    from .attention import MaskModule as MaskModule
    from .bundle_writer import export_bundle as export_bundle
    from .from_sources import ExportedBundle as ExportedBundle
    from .from_sources import export_from_sources as export_from_sources
    from .graphs import export_graph as export_graph
    from .noise_batches import RecordedNoise as RecordedNoise
    from .noise_batches import SourceNoise as SourceNoise
    from .noise_batches import draw_noise as draw_noise
    from .onnx_module import OnnxModule as OnnxModule
    from .reference import Purification as Purification
    from .reference import TorchReference as TorchReference
    from .step import LearnedStepModule as LearnedStepModule
    from .step import StepModule as StepModule
    from .step import UnetModule as UnetModule
    from .taps import Taps as Taps
    from .taps import default_taps as default_taps
    from .taps import find_taps as find_taps
    from .twin import load_twin as load_twin
    from .weights_pool import WeightsPool as WeightsPool


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
