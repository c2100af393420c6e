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
    "export_bundle": "bundle.writer",
    "export_from_sources": "bundle.from_sources",
    "ExportedBundle": "bundle.from_sources",
    "TorchReference": "twin.reference",
    "load_twin": "twin.twin",
    "OnnxModule": "twin.onnx_module",
    "Purification": "twin.reference",
    "RecordedNoise": "twin.noise_batches",
    "SourceNoise": "twin.noise_batches",
    "draw_noise": "twin.noise_batches",
    "AttentionHead": "graphs.attention",
    "MaskModule": "graphs.attention",
    "StepModule": "graphs.step",
    "LearnedStepModule": "graphs.step",
    "UnetModule": "graphs.step",
    "export_graph": "graphs.to_onnx",
    "WeightsPool": "graphs.weights_pool",
    "Taps": "graphs.taps",
    "default_taps": "graphs.taps",
    "find_taps": "graphs.taps",
    "verify_against_torch": "compare.against_torch",
}

__all__ = list(_PUBLIC)

if TYPE_CHECKING:
    from .bundle.from_sources import ExportedBundle as ExportedBundle
    from .bundle.from_sources import export_from_sources as export_from_sources
    from .bundle.writer import export_bundle as export_bundle
    from .compare.against_torch import verify_against_torch as verify_against_torch
    from .graphs.attention import AttentionHead as AttentionHead
    from .graphs.attention import MaskModule as MaskModule
    from .graphs.step import LearnedStepModule as LearnedStepModule
    from .graphs.step import StepModule as StepModule
    from .graphs.step import UnetModule as UnetModule
    from .graphs.taps import Taps as Taps
    from .graphs.taps import default_taps as default_taps
    from .graphs.taps import find_taps as find_taps
    from .graphs.to_onnx import export_graph as export_graph
    from .graphs.weights_pool import WeightsPool as WeightsPool
    from .twin.noise_batches import RecordedNoise as RecordedNoise
    from .twin.noise_batches import SourceNoise as SourceNoise
    from .twin.noise_batches import draw_noise as draw_noise
    from .twin.onnx_module import OnnxModule as OnnxModule
    from .twin.reference import Purification as Purification
    from .twin.reference import TorchReference as TorchReference
    from .twin.twin import load_twin as load_twin


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
