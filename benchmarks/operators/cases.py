"""All cases: ``CASES[group][name]`` takes an image ``[B, 4, 9, 11]`` and gives float32 numbers, batch first."""

from __future__ import annotations

from . import elements, images, tensors
from .common import Case

CASES: dict[str, dict[str, Case]] = {
    "elements": elements.ELEMENTS,
    "logic": elements.LOGIC,
    "activations": elements.ACTIVATIONS,
    "convolutions": images.CONVOLUTIONS,
    "pools": images.POOLS,
    "norms": images.NORMS,
    "resizes": images.RESIZES,
    "pads": images.PADS,
    "reductions": tensors.REDUCTIONS,
    "shapes": tensors.SHAPES,
    "products": tensors.PRODUCTS,
    "recurrent": tensors.RECURRENT,
    "fourier": tensors.FOURIER,
}
