"""Ranges of the activations of a graph, measured on recorded calls, and where to clip them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgepure.engines.kind import Scheme
from edgepure.engines.onnxruntime import OnnxRuntimeEngine
from edgepure_export.graphs.precision import load_graph
from edgepure_export.graphs.qdq import taps
from edgepure_export.graphs.qdq_rules import Tap
from edgepure_export.graphs.quantized_numbers import Range, fake_quantized
from edgepure_export.graphs.weights_pool import WeightsPool

from .recording import Samples

#: Samples that go through the graph at once, and bytes of activations that one pass may hand out.
BATCH, MOST_BYTES = 4, 256 << 20
#: Values of a tensor that are kept of every batch to choose where to clip.
KEPT = 2048
#: Ranges that are tried, as shares of the measured one.
SHARES = tuple(1.0 - 0.05 * i for i in range(13))


def measure_ranges(
    path: Path,
    scheme: Scheme,
    samples: Samples,
    work: Path,
    threads: int | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> dict[Tap, Range]:
    """The range of every tensor that has to be quantized, clipped where that makes the rounding error smallest.

    Args:
        path: the fp32 graph.
        scheme: decides which tensors are quantized.
        samples: recorded calls of this graph.
        work: an empty folder for instrumented copies of the graph, which are removed.
        threads: CPU threads; None: one per core.
        on_progress: called with the share done.
    """
    seen: dict[Tap, _Seen] = {tap: _Seen() for tap in taps(load_graph(path), scheme)}
    groups = list(_groups(path, scheme, min(BATCH, len(samples))))
    for number, names in enumerate(groups):
        for done, outputs in _run(path, names, samples, work, threads):
            for tap, name in names.items():
                seen[tap].add(outputs[name])
            if on_progress is not None:
                on_progress((number + done) / len(groups))
    return {tap: values.best(ir.DataType[scheme.activations]) for tap, values in seen.items()}


class _Seen:
    """Extremes of a tensor, and some of its values."""

    def __init__(self) -> None:
        self.low, self.high = np.inf, -np.inf
        self.values: list[NDArray[np.float32]] = []

    def add(self, array: NDArray[np.float32]) -> None:
        self.low, self.high = min(self.low, float(array.min())), max(self.high, float(array.max()))
        flat = array.ravel()
        self.values.append(flat[:: max(1, len(flat) // KEPT)][:KEPT].copy())

    def best(self, kind: ir.DataType) -> Range:
        values = np.concatenate([*self.values, np.array([self.low, self.high], np.float32)])
        if kind == ir.DataType.FLOAT8E4M3FN:  # its steps grow with the value: clipping gains nothing
            return self.low, self.high
        errors = []
        for share in SHARES:
            bounds = (share * self.low, share * self.high)
            errors.append(float(np.square(fake_quantized(values, bounds, kind) - values, dtype=np.float64).mean()))
        share = SHARES[int(np.argmin(errors))]
        return share * self.low, share * self.high


def _groups(path: Path, scheme: Scheme, batch: int) -> Iterator[dict[Tap, str]]:
    """Taps by the name of their tensor, in groups that together are not too large for the memory."""
    group: dict[Tap, str] = {}
    size = 0
    for tap, value in taps(load_graph(path), scheme).items():
        fixed = [n for n in (value.shape or ()) if isinstance(n, int)]
        mine = 4 * batch * prod(fixed)
        if group and size + mine > MOST_BYTES and value.name not in group.values():
            yield group
            group, size = {}, 0
        group[tap] = str(value.name)
        size += mine
    if group:
        yield group


def _run(
    path: Path, names: dict[Tap, str], samples: Samples, work: Path, threads: int | None
) -> Iterator[tuple[float, dict[str, NDArray[Any]]]]:
    """Pairs (share done, tensors by name) for each batch of samples."""
    wanted = set(names.values())
    model = load_graph(path)
    inputs = {str(value.name) for value in model.graph.inputs}
    present = {str(value.name) for value in model.graph.outputs}
    for node in model.graph:
        for value in node.outputs:
            if value.name in wanted - present:
                model.graph.outputs.append(value)
    with WeightsPool(work, "taps.bin") as pool:
        file = pool.save(model, "taps.onnx")
    try:
        with OnnxRuntimeEngine(file, "cpu", threads) as engine:
            assert isinstance(engine, OnnxRuntimeEngine)
            outputs = [name for name in engine.outputs if name in wanted]
            for start in range(0, len(samples), BATCH):
                feeds = {k: np.ascontiguousarray(v[start : start + BATCH]) for k, v in samples.feeds.items()}
                values = engine.session.run(outputs, feeds) if outputs else []
                found = dict(zip(outputs, values, strict=True)) | {k: feeds[k] for k in wanted & inputs}
                yield min(1.0, (start + BATCH) / len(samples)), found
    finally:
        for name in ("taps.onnx", "taps.bin"):
            (work / name).unlink(missing_ok=True)
