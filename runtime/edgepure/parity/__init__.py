"""How far a deployment is from its reference, at four levels: graphs, rows, images, decisions.

`edgepure.verify` puts the parts together.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
