"""Robustness evaluation: attacks through the twin, answers of the deployed engine, numbers with their protocols."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
