"""The built-in demonstration: a ready bundle of handwritten digits, some attacked images, and a report.

It needs neither PyTorch nor a network. ``edgepure demo`` runs it; the lessons in ``samples/`` use its bundle.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
