"""How far an engine is from PyTorch. Needs NumPy and the runtime alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgepure.engines.open import open_graph

#: What rounding of float32 may change, of the largest number of an output.
TOLERANCE = 3e-5


def difference(found: NDArray[np.float32], wanted: NDArray[np.float32]) -> float:
    """The largest, as a share of the largest number (at least 1); inf where shapes, NaNs or infinities differ."""
    if found.shape != wanted.shape:
        return float("inf")
    usual = np.isfinite(wanted)
    if not np.array_equal(found[~usual], wanted[~usual], equal_nan=True) or not np.isfinite(found[usual]).all():
        return float("inf")
    if not usual.any():
        return 0.0
    scale = max(float(np.abs(wanted[usual]).max()), 1.0)
    return float(np.abs(found[usual].astype(np.float64) - wanted[usual]).max()) / scale


def differences(
    path: Path, provider: str, x: NDArray[np.float32], wanted: Mapping[str, NDArray[np.float32]]
) -> dict[str, float]:
    """Of each output of a graph, for the whole batch and for its first image alone."""
    with open_graph(path, provider, threads=1) as engine:
        several, one = engine.run({"x": x}), engine.run({"x": x[:1]})
    return {
        name: max(difference(several[name], right), difference(one[name], right[:1])) for name, right in wanted.items()
    }
