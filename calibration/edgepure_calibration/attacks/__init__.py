"""Attacks on a defended classifier, by exact gradients or without any."""

from .defence import Defence
from .pgd import PGD, Logits

__all__ = ["PGD", "Defence", "Logits"]
