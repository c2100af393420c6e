"""Inference engines behind one small protocol: one row (`kinds`) and one file an engine, opened by its provider."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
