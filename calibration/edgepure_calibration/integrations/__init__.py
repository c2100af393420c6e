"""Defended classifiers in the forms that attack libraries take; `docs/integrations.md` has an example of each.

>>> from edgepure_calibration.integrations import PurifiedClassifier
>>> model = PurifiedClassifier.from_bundle("digits_bundle")   # doctest: +SKIP
>>> logits = model(images)                                    # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

#: Public names and the modules they live in: the one for ART imports ART.
_PUBLIC = {"PurifiedClassifier": "purified_classifier", "PurificationPreprocessor": "art_preprocessor"}

__all__ = list(_PUBLIC)

if TYPE_CHECKING:
    from .art_preprocessor import PurificationPreprocessor as PurificationPreprocessor
    from .purified_classifier import PurifiedClassifier as PurifiedClassifier


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
