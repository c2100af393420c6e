"""How large graphs are with the weights that they use."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import onnx


def graph_bytes(files: Iterable[Path]) -> int:
    """Bytes of graph files and of the external weights that they name; weights of several graphs count once."""
    total, shared = 0, set()
    for file in files:
        total += file.stat().st_size
        for tensor in onnx.load(file, load_external_data=False).graph.initializer:
            place = {entry.key: entry.value for entry in tensor.external_data}
            if place:
                shared.add((file.parent / place["location"], int(place["offset"]), int(place["length"])))
    return total + sum(length for _, _, length in shared)
