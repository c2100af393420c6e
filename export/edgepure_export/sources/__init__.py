"""Where networks come from: names such as ``timm:resnet50`` to modules with their preprocessing."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
