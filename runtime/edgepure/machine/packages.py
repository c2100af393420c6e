"""The packages behind the engines, and their versions: what a measurement means nothing without."""

from __future__ import annotations

import os
import sys
from functools import cache
from importlib.metadata import EntryPoint, PackageNotFoundError, distribution, entry_points

#: Both bring the module `onnxruntime`.
ONNXRUNTIME = ("onnxruntime", "onnxruntime-gpu")
#: provider -> what people call its engine, and the packages that it may come from.
ENGINES: dict[str, tuple[str, tuple[str, ...]]] = {
    "cpu": ("ONNX Runtime", ONNXRUNTIME),
    "openvino": ("OpenVINO", ("openvino",)),
    "cuda": ("ONNX Runtime", ONNXRUNTIME),
    "tensorrt": ("TensorRT", ("tensorrt",)),
    "tensorrt-rtx": ("TensorRT for RTX", ("tensorrt-rtx",)),
}


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


def engine_words(provider: str) -> str:
    """The engine behind a provider and its version, for people: ``OpenVINO 2026.4.1``."""
    name, packages = ENGINES[provider]
    found = package_version(*packages)
    return name if found is None else f"{name} {found}"


@cache
def extensions(group: str) -> dict[str, EntryPoint]:
    """What installed packages, edgepure among them, declare under an entry-point group such as ``edgepure.commands``.

    Nothing is imported before ``load()`` of one is called. Where two packages declare the same name, edgepure's own
    counts, else the first on Python's path.
    """
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=group):
        own = point.dist is not None and point.dist.name == "edgepure"
        if own or point.name not in found:
            found[point.name] = point
    return found
