"""Model sources: a text such as ``timm:resnet50`` becomes a network. One file a library or file format."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_PUBLIC = {
    "ClassifierSource": "scheme",
    "DiffusionSource": "scheme",
    "SourceText": "scheme",
    "classifier_scheme": "scheme",
    "diffusion_scheme": "scheme",
    "load_file": "scheme",
    "origin_of": "scheme",
    "resolve_classifier": "resolve",
    "resolve_diffusion": "resolve",
    "schemes": "resolve",
}

__all__ = list(_PUBLIC)

if TYPE_CHECKING:
    from .resolve import resolve_classifier as resolve_classifier
    from .resolve import resolve_diffusion as resolve_diffusion
    from .resolve import schemes as schemes
    from .scheme import ClassifierSource as ClassifierSource
    from .scheme import DiffusionSource as DiffusionSource
    from .scheme import SourceText as SourceText
    from .scheme import classifier_scheme as classifier_scheme
    from .scheme import diffusion_scheme as diffusion_scheme
    from .scheme import load_file as load_file
    from .scheme import origin_of as origin_of


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
