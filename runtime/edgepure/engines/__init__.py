"""Inference engines behind one small protocol. Import what you need from the module of the engine."""

from __future__ import annotations

from .base import Engine, Stepper, TensorSpec

__all__ = ["Engine", "Stepper", "TensorSpec"]
