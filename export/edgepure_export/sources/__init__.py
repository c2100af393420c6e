"""Model sources: a text such as ``timm:resnet50`` becomes a network. One file a library or file format."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
