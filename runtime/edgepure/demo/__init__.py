"""The built-in demonstration: a ready bundle of handwritten digits, some attacked images, and a report.

It needs neither PyTorch nor a network. ``edgepure demo`` runs it; the lessons in ``samples/`` use its bundle.
"""

from __future__ import annotations

from .data import DemoImages, demo_bundle, demo_images
from .run import run_demo

__all__ = ["DemoImages", "demo_bundle", "demo_images", "run_demo"]
