"""A bundle on disk: read with its hashes checked, written, changed."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
