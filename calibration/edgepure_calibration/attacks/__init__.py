"""Attacks on a defended classifier, by exact gradients or without any. Loaded when used: most of them need PyTorch."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
