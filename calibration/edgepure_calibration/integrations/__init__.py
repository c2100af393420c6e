"""Defended classifiers in the forms that attack libraries take; `docs/integrations.md` has an example of each.

>>> from edgepure_calibration.integrations import PurifiedClassifier
>>> model = PurifiedClassifier.from_bundle("digits_bundle")   # doctest: +SKIP
>>> logits = model(images)                                    # doctest: +SKIP
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
