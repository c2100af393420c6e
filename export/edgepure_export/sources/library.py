"""What the sources of model libraries share: their options, the optional package, the end of their work."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from edgepure.errors import ExportError, words_of

from .preprocessing import RESIZES, Preprocessed, Transform, describe
from .scheme import ClassifierSource, SourceText, origin_of, weight_files

#: Options of the schemes of classifier libraries.
LIBRARY_OPTIONS = ("weights", "entry", "num_classes", "resize", "size", "variant")


def check_options(source: SourceText, *names: str) -> None:
    """Everything that can be wrong with a library's options, before anything is downloaded."""
    source.allow(*names)
    resize, size = source.choice("resize", *RESIZES), source.number("size")
    if source.choice("variant", "own", "official") == "official" and {"resize", "size"} & set(source.options):
        raise ExportError(
            f"{source.text!r}: variant=official shows the image as it is; leave resize and size out",
            code="E-source-option-official",
        )
    if resize == "none" and size is not None:
        raise ExportError(f"{source.text!r}: resize=none and a size contradict each other", code="E-source-option-size")
    source.number("num_classes")


def finished(
    source: SourceText,
    network: nn.Module,
    transform: Transform,
    image_size: tuple[int, int] | None,
    classes: tuple[str, ...] | None,
    files: tuple[Path, ...] = (),
) -> ClassifierSource:
    """A library's network with its preprocessing, as the options ``resize``, ``size`` and ``variant`` say.

    ``files``: where its weights came from, if not from the option ``weights``.
    """
    weights = source.options.get("weights")
    if weights is not None and not source.random and Path(weights).is_file():
        files = weight_files(weights)
    if source.options.get("variant") == "official":
        transform = Transform(image_size or transform.size)
    else:
        transform = transform.fitted(source.options.get("resize", RESIZES[0]), source.number("size"))
    model = Preprocessed(network, transform, image_size)
    model.eval()
    origin = origin_of(source, *files, network=None if source.random else network)
    return ClassifierSource(model, origin, classes or None, network, source.random, describe(transform))


def library(name: str, source: SourceText) -> ModuleType:
    """An optional library, or one sentence about how to install it."""
    try:
        return import_module(name)
    except ImportError as error:
        raise ExportError(
            f"{source.text} needs the package {name.partition('.')[0]}, and {error.name or error} cannot be imported; "
            "install it with `pip install edgepure[models]`",
            code="E-source-package",
        ) from error


def nearest(name: str, names: list[str]) -> str:
    """The end of a sentence about an unknown name."""
    close = get_close_matches(name, names, n=5, cutoff=0.5)
    return f"; it has {', '.join(close)}" if close else ""


def known_filter(source: SourceText, name: str | None) -> Any:
    """The library's resizing filter under our name."""
    if name in (None, "random"):  # timm: drawn during training, bilinear when evaluating
        return "bilinear"
    if name in ("bilinear", "bicubic", "nearest", "lanczos", "box", "hamming"):
        return name
    if name == "nearest-exact":
        return "nearest"
    raise ExportError(
        f"{source.text!r} resizes with the filter {name!r}; choose resize=plain or resize=none",
        code="E-preprocessing-filter",
    )


@contextmanager
def config_in_use(source: SourceText) -> Iterator[None]:
    """Around what is made of the json files of a model folder, which say anything: one sentence for what they cause.

    Raises:
        ExportError: whatever the library raises.
    """
    try:
        yield
    except ExportError:
        raise
    except Exception as error:  # a value of another type, a size without sense: each library its own class
        what = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise ExportError(
            f"{source.text}: its json files describe no network ({what}); download it again", code="E-source-config"
        ) from error


def read_config(path: Path, source: SourceText) -> dict[str, Any]:
    """A json file of a model folder."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ExportError(
            f"{source.text}: {path.parent} has no {path.name}; download the whole model", code="E-source-config-missing"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ExportError(
            f"{source.text}: {path} cannot be read as json ({words_of(error)}); download it again",
            code="E-source-config-json",
        ) from None
    if not isinstance(content, dict):
        raise ExportError(
            f"{source.text}: {path} holds a {type(content).__name__}, expected an object", code="E-source-config-object"
        )
    return content
