"""`python -m benchmarks.openvino [--only NAME] [--quick]`: OpenVINO beside ONNX Runtime on the model families.

The models of `benchmarks.models`, random weights of their true architecture: milliseconds a call of ONNX Runtime in
fp32 and of OpenVINO in fp32 and in bf16 (heavy operators; the types are in the graph), medians of rounds in which each
runs once, and the largest difference to ONNX Runtime's fp32 as a share of the largest number. Times mean something
only on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from edgepure.engines import BoundCall, Engine, open_graph
from edgepure.files.atomic import write_text
from edgepure.measure import interleaved
from edgepure_export.graphs.precision import load_graph, to_half
from edgepure_export.graphs.to_onnx import export_graph
from edgepure_export.graphs.weights_pool import WeightsPool

from .__main__ import machine
from .models import MODELS, QUICK, Model, build, kept_rows

#: Seconds that the rounds of one model at one batch size take, about, and above which it is left out.
BUDGET, MOST = 120.0, 300.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three small models, two rounds, nothing is written")
    parser.add_argument(
        "--only", action="append", help="part of a model's name; the other rows stay, if measured here today"
    )
    parser.add_argument("--out", type=Path, default=Path("out/openvino.json"))
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    chosen = QUICK if options.quick else MODELS
    if options.only:
        chosen = tuple(m for m in chosen if any(part.lower() in m.name.lower() for part in options.only))
    info = machine()
    rows = {} if options.quick else kept_rows(options.out, info, bool(options.only))
    for model in chosen:
        print(f"{model.name} ...", flush=True)
        rows[model.name] = measure(model, options.threads, 2 if options.quick else 9)
        print(json.dumps(rows[model.name]), flush=True)
        gc.collect()
        if not options.quick:
            options.out.parent.mkdir(parents=True, exist_ok=True)
            known = {m.name: rows[m.name] for m in MODELS if m.name in rows}
            write_text(options.out, json.dumps({"machine": info, "models": known}, indent=1) + "\n")
    print(table(rows))


def measure(model: Model, threads: int, repeats: int) -> dict[str, Any]:
    """One row of the table."""
    module, make = build(model)
    result: dict[str, Any] = {"source": model.source, "threads": threads}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = {precision: folder / precision / "model.onnx" for precision in ("fp32", "bf16")}
        for file in files.values():
            file.parent.mkdir()
        with WeightsPool(files["fp32"].parent) as pool:
            pool.save(export_graph("model", module, make(2), ["out"]).model, "model.onnx")
        with WeightsPool(files["bf16"].parent) as pool:
            half = load_graph(files["fp32"])
            to_half(half, "bf16")
            pool.save(half, "model.onnx")
        del module, half
        gc.collect()
        engines = {
            "onnxruntime_fp32": open_graph(files["fp32"], threads=threads),
            "openvino_fp32": open_graph(files["fp32"], "openvino", threads=threads),
            "openvino_bf16": open_graph(files["bf16"], "openvino", precision="bf16", threads=threads),
        }
        feeds = {name: value.numpy() for name, value in make(1).items()}
        answers = {name: engine.run(feeds)["out"] for name, engine in engines.items()}
        reference = answers.pop("onnxruntime_fp32")
        result["difference"] = {
            name: float(np.abs(found - reference).max() / np.abs(reference).max()) for name, found in answers.items()
        }
        for batch in (1, 8):
            result[f"batch_{batch}"] = timing(engines, batch, repeats)
        for engine in engines.values():
            engine.close()
    return result


def timing(engines: dict[str, Engine], batch: int, repeats: int) -> dict[str, float] | None:
    """Milliseconds a call and ratios; None if that would take too long."""
    calls: dict[str, BoundCall] = {name: engine.bound(batch) for name, engine in engines.items()}
    started = time.perf_counter()
    calls["onnxruntime_fp32"]()
    if 3 * len(calls) * (time.perf_counter() - started) > MOST:
        return None
    started = time.perf_counter()
    for call in calls.values():
        call()
    rounds = max(2, min(repeats, int(BUDGET / (time.perf_counter() - started))))
    times = interleaved(calls, rounds, warmup=1)
    found = {name: 1e3 * times.median(name) for name in calls}
    ratios = {f"{name}_ratio": times.ratio("onnxruntime_fp32", name) for name in calls if name != "onnxruntime_fp32"}
    return {**found, **ratios, "rounds": rounds}


def table(rows: dict[str, Any]) -> str:
    """The table as Markdown."""
    head = "ONNX Runtime fp32, ms | OpenVINO fp32 | OpenVINO bf16"
    lines = [f"| model | batch 1: {head} | batch 8: {head} | difference of bf16 |", "|" + "---|" * 8]
    for name, row in rows.items():
        cells = [name]
        for batch in (1, 8):
            t = row[f"batch_{batch}"]
            if t is None:
                cells += ["not measured", "-", "-"]
                continue
            cells.append(f"{t['onnxruntime_fp32']:.4g}")
            cells += [f"{t[e]:.4g} ({t[f'{e}_ratio']:.2f}x)" for e in ("openvino_fp32", "openvino_bf16")]
        lines.append(f"| {' | '.join(cells)} | {row['difference']['openvino_bf16']:.1e} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
