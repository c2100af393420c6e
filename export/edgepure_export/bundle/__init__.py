"""The bundle writer: networks or sources in, a checked bundle out."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
