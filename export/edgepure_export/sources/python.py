"""The scheme ``python``: a network from the user's own code.

``python:package.module:function`` or ``python:path/to/file.py:function``. It imports the module, so it runs its code.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from edgepure.errors import ExportError, words_of
from edgepure.files.folders import real_path
from edgepure.rows.schedule import NoiseSchedule

from .scheme import (
    ClassifierSource,
    DiffusionSource,
    SourceText,
    classifier_scheme,
    diffusion_scheme,
    load_file,
    origin_of,
    weight_files,
)


@classifier_scheme("python")
def python_classifier(source: SourceText, image_size: tuple[int, int] | None) -> ClassifierSource:
    """``python:package.module:function``; options ``weights`` and ``entry``."""
    return ClassifierSource(*_network(source))


@diffusion_scheme("python")
def python_diffusion(source: SourceText, schedule: NoiseSchedule) -> DiffusionSource:
    """The same for an epsilon-model, ``(x, t) -> epsilon``."""
    return DiffusionSource(*_network(source))


def _network(source: SourceText) -> tuple[nn.Module, str]:
    """The network and its origin."""
    source.allow("weights", "entry")
    if source.random:
        raise ExportError(
            f"{source.text!r}: your own code decides about random weights; leave ?weights=random out",
            code="E-source-random",
        )
    network = load_module(source.place)
    weights = source.options.get("weights")
    if weights is not None:
        load_file(network, weights, source.options.get("entry"))
        return network, origin_of(source, *weight_files(weights))
    return network, origin_of(source, network=network)


def load_module(reference: str) -> nn.Module:
    """The network behind ``package.module:name`` or ``path/to/file.py:name``.

    ``name`` is a module, or something to call without arguments that gives one: a function or an ``nn.Module`` class.
    The working directory is searched too, as `python -m` does.

    Raises:
        ExportError: nothing there, the code fails, or it gives something else than a network.
    """
    found = load_named(reference)
    if not isinstance(found, nn.Module):
        if not callable(found):
            raise ExportError(
                f"python:{reference} is a {type(found).__name__}, expected a network or a function",
                code="E-source-python-function",
            )
        try:
            found = found()
        except Exception as error:  # whatever the user's own code raises
            raise ExportError(
                f"python:{reference} failed: {type(error).__name__}: {words_of(error)}; mend the function, or its "
                "weights",
                code="E-source-code-failed",
            ) from error
    if not isinstance(found, nn.Module):
        raise ExportError(
            f"python:{reference} gave a {type(found).__name__}, expected a torch.nn.Module",
            code="E-source-python-module",
        )
    return found


def load_named(reference: str) -> Any:
    """What ``package.module:name`` or ``path/to/file.py:name`` is.

    Raises:
        ExportError: nothing there, or the module's code fails.
    """
    place, colon, name = reference.rpartition(":")
    if not colon or not place or not name:
        raise ExportError(
            f"python:{reference}: expected python:package.module:function or python:path/to/file.py:function",
            code="E-source-python",
        )
    module = _import_file(place) if place.endswith(".py") else _import_name(place)
    if not hasattr(module, name):
        offered = ", ".join(n for n in vars(module) if not n.startswith("_") and callable(getattr(module, n)))
        raise ExportError(
            f"python:{reference}: {place} has no {name!r}; it has {offered or 'nothing to call'}",
            code="E-source-python-name",
        )
    return getattr(module, name)


def _import_name(name: str) -> ModuleType:
    with _search_first(Path.cwd()):
        try:
            return importlib.import_module(name)
        except Exception as error:  # whatever the user's own code raises
            raise ExportError(
                f"python:{name} cannot be imported: {type(error).__name__}: {words_of(error)}", code="E-source-code"
            ) from error


def _import_file(name: str) -> ModuleType:
    path = real_path(name)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise ExportError(f"python:{name}: there is no such file; check the path", code="E-source-file-missing")
    module = importlib.util.module_from_spec(spec)
    with _search_first(path.parent):
        sys.modules[path.stem], before = module, sys.modules.get(path.stem)  # dataclasses look their module up
        try:
            spec.loader.exec_module(module)
        except Exception as error:  # whatever the user's own code raises
            if before is None:
                del sys.modules[path.stem]
            else:
                sys.modules[path.stem] = before
            raise ExportError(
                f"python:{name} cannot be imported: {type(error).__name__}: {words_of(error)}", code="E-source-code"
            ) from error
    return module


@contextmanager
def _search_first(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
