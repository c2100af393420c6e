"""`edgepure serve`: bundles behind the Open Inference Protocol. It needs the extra ``serve``.

`serve` runs until it is told to end; `ModelSettings` and `ServeSettings` say what and how.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
