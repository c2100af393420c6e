"""Variants of a bundle in lower precision, each through a gate that is in decisions. `quantize` is the way in."""

from .quantize import quantize
from .settings import Attempt, Outcome, QuantizeSettings
from .verdict import Limits

__all__ = ["Attempt", "Limits", "Outcome", "QuantizeSettings", "quantize"]
