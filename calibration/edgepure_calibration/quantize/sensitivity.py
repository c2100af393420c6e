"""How much each layer alone costs: the step graph with one layer converted, against fp32, on recorded calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from edgepure.bundle.bundle import Bundle
from edgepure.bundle.entries import GraphName, Target, VariantName
from edgepure.engines import open_graph
from edgepure.engines.base import Engine
from edgepure.types import Float32
from edgepure_export.graphs.qdq_rules import Tap
from edgepure_export.graphs.quantized_numbers import Range

from .draft import build, layers
from .recording import Samples

#: Recorded calls that every layer is measured on.
CALLS = 16


def measure_sensitivity(
    bundle: Bundle,
    graph: GraphName,
    precision: VariantName,
    target: Target,
    ranges: Mapping[Tap, Range] | None,
    samples: Samples,
    work: Path,
    known: Mapping[str, float],
    threads: int | None = None,
    on_layer: Callable[[str, float, float], None] | None = None,
) -> dict[str, float]:
    """The error of a step's result that the conversion of each layer alone makes, as a share of the result.

    Args:
        bundle, graph, precision, target, ranges: what is converted, and how.
        samples: recorded calls of the graph; `CALLS` of them are used, spread over the timesteps.
        work: a folder for the graphs that are tried.
        known: what an interrupted run measured already.
        threads: CPU threads; None: one per core.
        on_layer: called with (layer, its error, share done) after each one.

    Returns:
        Layer (operator name) to root mean square of the difference over that of the fp32 result.
    """
    some = samples.some(CALLS)
    names = layers(bundle, graph, precision)
    found = {name: known[name] for name in names if name in known}
    for number, name in enumerate(names):
        if name in found:
            continue
        others = [other for other in names if other != name]
        draft = build(bundle, precision, target, work, ranges, others, (graph,))
        with open_graph(draft.runnable[graph], precision=draft.opened_as, threads=threads) as engine:
            found[name] = output_error(engine, some)
        if on_layer is not None:
            on_layer(name, found[name], (number + 1) / len(names))
    return {name: found[name] for name in names}


def output_error(engine: Engine, samples: Samples) -> float:
    """Root mean square of (what the graph makes of the samples - the fp32 result) over that of the fp32 result."""
    parts: list[Float32] = []
    for start in range(0, len(samples), 8):
        feeds = {name: array[start : start + 8] for name, array in samples.feeds.items()}
        parts.append(engine.run(feeds)["x_next"])
    difference = np.concatenate(parts).astype(np.float64) - samples.after
    return float(np.sqrt(np.mean(difference**2) / np.mean(samples.after.astype(np.float64) ** 2)))
