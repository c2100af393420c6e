"""Inference engines behind one small protocol: one row (`kinds`) and one file an engine, opened by its provider."""

from __future__ import annotations

from .base import BoundCall, Engine, Stepper, TensorSpec
from .host import HostEngine
from .kinds import Kind, Opening, Probe, providers
from .open import open_engine, open_graph

__all__ = [
    "BoundCall",
    "Engine",
    "HostEngine",
    "Kind",
    "Opening",
    "Probe",
    "Stepper",
    "TensorSpec",
    "open_engine",
    "open_graph",
    "providers",
]
