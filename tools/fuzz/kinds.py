"""All kinds, by name. Each is imported where its inputs are tried and nowhere else: PyTorch takes seconds."""

from __future__ import annotations

import importlib
import importlib.util

from .kind import Kind

#: Where a kind is, and its share of all inputs, relative to the others: what is quick gets more.
KINDS: dict[str, tuple[str, float]] = {
    "manifest": ("documents:Manifests", 2.0),
    "preset": ("documents:Presets", 2.0),
    "schedule": ("documents:Schedules", 1.0),
    "image": ("pictures:Images", 4.0),
    "array": ("pictures:Arrays", 3.0),
    "dataset": ("pictures:DataSets", 2.0),
    "bundle": ("bundles:Bundles", 1.0),
    "graph": ("bundles:Graphs", 4.0),
    "engine": ("bundles:Engines", 0.2),
    "outcomes": ("bundles:Outcomes", 1.0),
    "rest": ("messages:RestBodies", 2.0),
    "grpc": ("messages:GrpcMessages", 1.0),
}
if importlib.util.find_spec("torch") is not None:
    KINDS["checkpoint"] = ("weights:Checkpoints", 1.0)


def kind_called(name: str) -> type[Kind]:
    """One of `KINDS`, or somebody else's as ``module:Class``. Raises KeyError."""
    place = name if ":" in name else f"{__package__}.{KINDS[name][0]}"
    module, _, attribute = place.partition(":")
    found: type[Kind] = getattr(importlib.import_module(module), attribute)
    return found
