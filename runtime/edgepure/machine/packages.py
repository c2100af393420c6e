"""Installed packages: their versions, without which a measurement means nothing, and what they add to edgepure."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import EntryPoint, PackageNotFoundError, distribution, entry_points
from typing import Any

from ..errors import ConfigError, EdgepureError


def installed_package(*names: str) -> tuple[str, str] | None:
    """The one of these packages that Python imports, with its version: the first on Python's path, which counts where
    several bring the same module; None if there is none."""
    places = [os.path.realpath(place) for place in sys.path]
    found = []
    for name in names:
        try:
            package = distribution(name)
        except PackageNotFoundError:
            continue
        place = os.path.realpath(str(package.locate_file("")))
        found.append((places.index(place) if place in places else len(places), name, package.version))
    return min(found, key=lambda package: package[0])[1:] if found else None


def package_version(*names: str) -> str | None:
    """Of the one of these packages that Python imports; None if none is installed."""
    found = installed_package(*names)
    return None if found is None else found[1]


@cache
def _declared() -> Any:
    """What all installed packages declare: read once, because that means looking into each of them."""
    return entry_points()


@cache
def extensions(group: str) -> dict[str, EntryPoint]:
    """What installed packages, edgepure among them, declare under an entry-point group such as ``edgepure.commands``.

    Nothing is imported before ``load()`` of one is called. Where two packages declare the same name, edgepure's own
    counts, else the first on Python's path.
    """
    found: dict[str, EntryPoint] = {}
    for point in _declared().select(group=group):
        own = point.dist is not None and point.dist.name == "edgepure"
        if own or point.name not in found:
            found[point.name] = point
    return found


@contextmanager
def needs(what: str, extra: str, kind: type[EdgepureError] = ConfigError) -> Iterator[None]:
    """Around imports of what an extra brings: one that fails becomes one sentence with the line that installs it.

    Args:
        what: begins the sentence: ``a report needs Matplotlib``.
        extra: of edgepure, which brings it.
    """
    try:
        yield
    except ImportError as error:
        raise kind(
            f"{what}, and {error.name or error} cannot be imported; install it with `pip install edgepure[{extra}]`",
            code="E-missing-package",
        ) from error
