"""What crosses the bus for each row of a purification, counted by CUPTI through PyTorch's profiler."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgepure.methods import UniformSpec
from edgepure.purify.inflight import InFlight, Job
from edgepure.purify.purifier import Purifier
from edgepure.rows.noise import SeededNoise

from .context import CannotRunError

#: Rows of the two purifications whose difference is taken: what happens once for each image drops out.
SHORT, LONG = 10, 30
#: Bytes that a row may copy to the GPU for each slot: coefficients, and which noise is to be made.
ALLOWED = 128
#: And once for all of them: ONNX Runtime sends some of its kernels (Split, Concat) lists of sizes and addresses.
ALLOWED_FOR_KERNELS = 512


def count(engine: Purifier, device: str) -> Mapping[str, Any]:
    """Copies and bytes for each row, by direction; only coefficients, counters of noise and
    parameters of kernels may cross."""
    if device != "cuda":
        raise CannotRunError("there is no bus to watch")
    events = {rows: _events(partial(_purify, engine, rows)) for rows in (SHORT, LONG)}
    bytes_per_row, copies_per_row = {}, {}
    for direction in ("HtoD", "DtoH", "DtoD"):
        short, long = (_total(events[rows], direction) for rows in (SHORT, LONG))
        copies_per_row[direction] = (long[0] - short[0]) / (LONG - SHORT)
        bytes_per_row[direction] = (long[1] - short[1]) / (LONG - SHORT)
    return {
        "ok": bytes_per_row["HtoD"] <= ALLOWED * engine.slots + ALLOWED_FOR_KERNELS and bytes_per_row["DtoH"] == 0,
        "bytes_to_gpu_a_row": bytes_per_row["HtoD"],
        "bytes_from_gpu_a_row": bytes_per_row["DtoH"],
        "copies_a_row": copies_per_row,
        "image_bytes": int(np.prod(engine.image_shape)) * 4,
    }


def _purify(engine: Purifier, rows: int) -> None:
    spec = UniformSpec(t_star=10 * rows, steps=rows, sampler="ddim", eta=1.0)
    plan = spec.compile(engine.schedule, int(np.prod(engine.image_shape)))
    ref = np.zeros(engine.image_shape, np.float32)
    noise = SeededNoise(1).for_image(plan, 0, 0, None, engine.image_shape)
    InFlight(engine.stepper("step")).run([Job(plan, noise, ref)], lambda job, x: None)


def _events(work: Callable[[], object]) -> list[dict[str, Any]]:
    """The copies in a trace of ``work``, after a run that is not traced."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    from .networks import need_torch

    need_torch("cuda")
    work()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as traced:
        work()
        torch.cuda.synchronize()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        traced.export_chrome_trace(str(path))
        found = read_copies(json.loads(path.read_text()))
    if not found:
        raise CannotRunError("the profiler saw no copy at all: CUPTI is not available to this user")
    return found


def read_copies(trace: Mapping[str, Any]) -> list[dict[str, Any]]:
    """``{"direction": "HtoD", "bytes": n}`` of every copy in a trace in Chrome's format."""
    return [
        {"direction": event["name"].split()[1], "bytes": int(event.get("args", {}).get("bytes", 0))}
        for event in trace.get("traceEvents", [])
        if event.get("cat") == "gpu_memcpy" and event.get("name", "").startswith("Memcpy ")
    ]


def _total(events: list[dict[str, Any]], direction: str) -> tuple[int, int]:
    """Number and bytes of the copies in one direction."""
    totals: Counter[str] = Counter()
    for event in events:
        if event["direction"] == direction:
            totals["count"] += 1
            totals["bytes"] += event["bytes"]
    return totals["count"], totals["bytes"]
