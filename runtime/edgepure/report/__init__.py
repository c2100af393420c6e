"""One way to make a page: sections, pictures and plots become one HTML file that stands alone."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
