"""Purification methods: one file a method, from its parameters (a spec) to the rows of a `Plan`."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
