"""Where networks come from: a text such as ``python:package.module:function`` becomes a PyTorch module.

A source is ``scheme:rest``. Each scheme is a function that was registered with `classifier_scheme` or
`diffusion_scheme`; the command line and the Python interface go through the same two resolvers. The scheme ``python``
imports a module, so it runs that module's code: give it only code that you trust.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from edgepure.errors import ExportError
from edgepure.schedule import ScheduleSpec
from torch import nn


@dataclass(frozen=True)
class ClassifierSource:
    """A classifier ``image [B, C, H, W] in [0, 1] -> logits [B, N]`` in eval mode.

    Attributes:
        model: the network, its preprocessing inside.
        origin: the text that it was resolved from, for the bundle's provenance.
        classes: names of the classes, where the source knows them.
    """

    model: nn.Module
    origin: str
    classes: tuple[str, ...] | None = None


@dataclass(frozen=True)
class DiffusionSource:
    """An epsilon-model ``(x [B, C, H, W], t [B] float) -> epsilon [B, C, H, W]`` in eval mode.

    Attributes:
        model: the network; with ``2C`` output channels it predicts a variance too.
        origin: the text that it was resolved from.
        schedule: the noise schedule it was trained with, where the source knows it.
    """

    model: nn.Module
    origin: str
    schedule: ScheduleSpec | None = None


S = TypeVar("S", ClassifierSource, DiffusionSource)
#: Makes a source from what follows ``scheme:``.
ClassifierResolver = Callable[[str], ClassifierSource]
DiffusionResolver = Callable[[str], DiffusionSource]

_CLASSIFIERS: dict[str, ClassifierResolver] = {}
_DIFFUSIONS: dict[str, DiffusionResolver] = {}


def classifier_scheme(scheme: str) -> Callable[[ClassifierResolver], ClassifierResolver]:
    """Decorator: register a resolver of classifiers for ``scheme:...``."""

    def register(resolver: ClassifierResolver) -> ClassifierResolver:
        _CLASSIFIERS[scheme] = resolver
        return resolver

    return register


def diffusion_scheme(scheme: str) -> Callable[[DiffusionResolver], DiffusionResolver]:
    """Decorator: register a resolver of diffusion models for ``scheme:...``."""

    def register(resolver: DiffusionResolver) -> DiffusionResolver:
        _DIFFUSIONS[scheme] = resolver
        return resolver

    return register


def resolve_classifier(source: str, weights: str | PathLike[str] | None = None) -> ClassifierSource:
    """Make a classifier.

    Args:
        source: ``scheme:rest``, for example ``python:package.module:function``.
        weights: a ``.safetensors`` file to load into it; every tensor must fit.

    Raises:
        ExportError: unknown scheme, nothing behind the source, no network, or weights that do not fit.
    """
    return _finished(_resolve(_CLASSIFIERS, "classifier", source), weights, "classifier")


def resolve_diffusion(source: str, weights: str | PathLike[str] | None = None) -> DiffusionSource:
    """Make an epsilon-model. Arguments and errors are those of `resolve_classifier`."""
    return _finished(_resolve(_DIFFUSIONS, "diffusion model", source), weights, "diffusion model")


@classifier_scheme("python")
def _python_classifier(reference: str) -> ClassifierSource:
    return ClassifierSource(load_module(reference), f"python:{reference}")


@diffusion_scheme("python")
def _python_diffusion(reference: str) -> DiffusionSource:
    return DiffusionSource(load_module(reference), f"python:{reference}")


def load_module(reference: str) -> nn.Module:
    """The network behind ``package.module:name`` or ``path/to/file.py:name``.

    ``name`` is a module, or something to call without arguments that gives one: a function or an ``nn.Module`` class.
    The working directory is searched too, as `python -m` does.

    Raises:
        ExportError: nothing there, the code fails, or it gives something else than a network.
    """
    place, colon, name = reference.rpartition(":")
    if not colon or not place or not name:
        raise ExportError(
            f"python:{reference}: expected python:package.module:function or python:path/to/file.py:function"
        )
    module = _import_file(place) if place.endswith(".py") else _import_name(place)
    if not hasattr(module, name):
        offered = ", ".join(n for n in vars(module) if not n.startswith("_") and callable(getattr(module, n)))
        raise ExportError(f"python:{reference}: {place} has no {name!r}; it has {offered or 'nothing to call'}")
    found = getattr(module, name)
    if not isinstance(found, nn.Module):
        if not callable(found):
            raise ExportError(f"python:{reference} is a {type(found).__name__}, expected a network or a function")
        try:
            found = found()
        except Exception as error:  # whatever the user's own code raises
            raise ExportError(f"python:{reference} failed: {type(error).__name__}: {error}") from error
    if not isinstance(found, nn.Module):
        raise ExportError(f"python:{reference} gave a {type(found).__name__}, expected a torch.nn.Module")
    return found


def _resolve(table: dict[str, Callable[[str], S]], what: str, source: str) -> S:
    scheme, colon, rest = source.partition(":")
    if not colon or scheme not in table:
        raise ExportError(
            f"{what} {source!r}: expected scheme:name, with the scheme {' or '.join(sorted(table))}; for example "
            "python:package.module:function"
        )
    return table[scheme](rest)


def _finished(source: S, weights: str | PathLike[str] | None, what: str) -> S:
    if weights is not None:
        _load_weights(source.model, Path(weights), what)
    source.model.eval()
    return source


def _load_weights(model: nn.Module, path: Path, what: str) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if path.suffix != ".safetensors":
        raise ExportError(
            f"weights {path}: expected a .safetensors file; other formats are pickles, which can run code when opened"
        )
    try:
        tensors = load_file(path)
    except FileNotFoundError:
        raise ExportError(f"weights {path}: there is no such file; check the path") from None
    except (OSError, SafetensorError) as error:
        raise ExportError(f"weights {path} cannot be read ({error}); the file is damaged or cut off") from None
    try:
        wrong = model.load_state_dict(tensors, strict=False)
    except RuntimeError as error:
        first = str(error).strip().splitlines()[-1].strip()
        raise ExportError(f"weights {path} do not fit the {what}: {first}") from None
    for problem, names in (("lack", wrong.missing_keys), ("hold the unknown", wrong.unexpected_keys)):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise ExportError(f"weights {path} {problem} {', '.join(names[:3])}{more}; are they of another {what}?")


def _import_name(name: str) -> ModuleType:
    with _search_first(Path.cwd()):
        try:
            return importlib.import_module(name)
        except Exception as error:  # whatever the user's own code raises
            raise ExportError(f"python:{name} cannot be imported: {type(error).__name__}: {error}") from error


def _import_file(name: str) -> ModuleType:
    path = Path(name).resolve()
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise ExportError(f"python:{name}: there is no such file; check the path")
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
            raise ExportError(f"python:{name} cannot be imported: {type(error).__name__}: {error}") from error
    return module


@contextmanager
def _search_first(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
