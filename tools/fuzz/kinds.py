"""All kinds, by name. What needs PyTorch is there where PyTorch is."""

from __future__ import annotations

import importlib
import importlib.util

from .bundles import Bundles, Engines, Graphs, Outcomes
from .documents import Manifests, Presets, Schedules
from .kind import Kind
from .messages import GrpcMessages, RestBodies
from .pictures import Arrays, DataSets, Images

KINDS: dict[str, type[Kind]] = {
    kind.name: kind
    for kind in (
        Manifests, Presets, Schedules, Images, Arrays, DataSets, Bundles, Graphs, Engines, Outcomes, RestBodies,
        GrpcMessages,
    )
}  # fmt: skip
if importlib.util.find_spec("torch") is not None:
    from .weights import Checkpoints

    KINDS[Checkpoints.name] = Checkpoints


def kind_called(name: str) -> type[Kind]:
    """One of `KINDS`, or somebody else's as ``module:Class``. Raises KeyError."""
    if ":" not in name:
        return KINDS[name]
    module, _, attribute = name.partition(":")
    found: type[Kind] = getattr(importlib.import_module(module), attribute)
    return found
