"""Variants of a bundle in lower precision, each through a gate that is in decisions. `quantize` is the way in."""

from .quantize import quantize
from .request import Attempt, Outcome, Request
from .verdict import Limits

__all__ = ["Attempt", "Limits", "Outcome", "Request", "quantize"]
