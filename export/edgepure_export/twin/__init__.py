"""The differentiable twin of a bundle: what the engines compute, in PyTorch."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
