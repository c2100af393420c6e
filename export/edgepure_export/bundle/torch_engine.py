"""The networks of a bundle as its engine: a `Purifier` that computes in PyTorch."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from edgepure.bundle.bundle import Bundle
from edgepure.engines.base import TensorSpec
from edgepure.engines.host import HostEngine
from edgepure.purify.purifier import Purifier

from .after_export import run_module
from .graph_files import Part

Float32 = NDArray[np.float32]


class TorchEngine(HostEngine):
    """A module in place of the graph that was exported from it."""

    provider = "torch"

    def __init__(self, part: Part, bundle: Bundle) -> None:
        entry = bundle.manifest.graphs[part.name]
        self._part = part
        self.inputs, self.outputs = (
            {t.name: TensorSpec(t.name, t.shape, "float32") for t in tensors}
            for tensors in (entry.inputs, entry.outputs)
        )

    def _run(self, feeds: dict[str, NDArray[np.generic]]) -> dict[str, Float32]:
        inputs = {name: torch.tensor(feeds[name]) for name in self._part.inputs}  # copies: slots are written to again
        return run_module(self._part.module, inputs, self._part.outputs)


def torch_purifier(bundle: Bundle, parts: Mapping[str, Part], slots: int = 8) -> Purifier:
    """A purifier of a bundle whose graphs are these modules; close it after use."""
    return Purifier(bundle, slots=slots, opens=lambda opened, graph, *_: TorchEngine(parts[graph], opened))
