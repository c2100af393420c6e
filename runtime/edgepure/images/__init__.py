"""Images of every kind to float32 NCHW in [0, 1], and folders or archives of labelled images."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
