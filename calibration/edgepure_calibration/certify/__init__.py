"""Certified accuracy of a data set: how often the answer is right, and proven to stay so within an L2 radius."""

from .results import Certified, Curve, Entry
from .run import CertifyRequest, certify_data

__all__ = ["Certified", "CertifyRequest", "Curve", "Entry", "certify_data"]
