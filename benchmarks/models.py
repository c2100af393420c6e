"""`python -m benchmarks.models [--quick] [--only NAME]`: the table of docs/models.md, one row a model family.

Every model has random weights of its true architecture. A row: parameters, GMACs of a call, seconds of the export,
size of the ONNX graph with its weights, largest difference to PyTorch, and milliseconds a call of ONNX Runtime and of
PyTorch eager (default layout and channels_last; the better one counts) at batch 1 and 8, same number of threads. Times
mean something only on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from edgepure.measure import interleaved
from edgepure_export.bundle.graph_files import ClassifierModule
from edgepure_export.graphs.step import UnetModule
from edgepure_export.graphs.to_onnx import check_file, export_graph
from edgepure_export.graphs.weights_pool import WeightsPool
from edgepure_export.sources.resolve import resolve_classifier, resolve_diffusion

from .__main__ import machine

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "docs" / "models.md"
RESULTS = ROOT / "docs" / "results" / "models.json"
#: Where the table goes in the document.
BEGIN, END = "<!-- made by benchmarks/models.py: begin -->", "<!-- end -->"
#: Seconds that the timing of one model at one batch size may take; at least one round is always made.
BUDGET = 120.0

#: The UNet of Ho et al. 2020 for CIFAR-10 as diffusers' google/ddpm-cifar10-32 has it.
DDPM_CIFAR10 = {
    "sample_size": 32,
    "in_channels": 3,
    "out_channels": 3,
    "layers_per_block": 2,
    "act_fn": "silu",
    "block_out_channels": [128, 256, 256, 256],
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D", *["DownBlock2D"] * 2],
    "up_block_types": [*["UpBlock2D"] * 2, "AttnUpBlock2D", "UpBlock2D"],
    "attention_head_dim": None,
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "norm_eps": 1e-6,
    "norm_num_groups": 32,
}


@dataclass(frozen=True)
class Model:
    """A row: its name in the table, its source, and the image size that a classifier gets."""

    name: str
    kind: str
    source: str
    size: int = 32


MODELS = (
    Model("DDPM CIFAR-10 (diffusers)", "diffusion", "diffusers:{ddpm}?weights=random"),
    Model("DDPM++ continuous", "diffusion", "score-sde:cifar10-ddpmpp-continuous?weights=random"),
    Model("DDPM++ deep continuous", "diffusion", "score-sde:cifar10-ddpmpp-deep-continuous?weights=random"),
    Model("EDM CIFAR-10 (VP network)", "diffusion", "edm:cifar10-32x32-uncond-vp?weights=random"),
    Model("improved-diffusion CIFAR-10", "diffusion", "guided-diffusion:cifar10-uncond?weights=random"),
    Model("improved-diffusion ImageNet 64", "diffusion", "guided-diffusion:imagenet64-uncond?weights=random"),
    Model("guided-diffusion ImageNet 256", "diffusion", "guided-diffusion:imagenet256-uncond?weights=random"),
    Model("WRN-28-10", "classifier", "robustbench-wrn:WRN-28-10?weights=random"),
    Model("WRN-70-16 (DeepMind)", "classifier", "robustbench-wrn:DM-WRN-70-16?weights=random"),
    Model("ResNet-50, 256 to 224", "classifier", "torchvision:resnet50?weights=random", 256),
    Model("ConvNeXt-T, 256 to 224", "classifier", "timm:convnext_tiny?weights=random", 256),
    Model("ViT-B/16, 256 to 224", "classifier", "timm:vit_base_patch16_224?weights=random", 256),
)
#: Small ones, to see that the script runs.
QUICK = (
    Model("WRN-10-1", "classifier", "robustbench-wrn:WRN-10-1?weights=random"),
    Model("test_resnet, 32 to 160", "classifier", "timm:test_resnet?weights=random"),
    Model("DDPM CIFAR-10 (diffusers)", "diffusion", "diffusers:{ddpm}?weights=random"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three small models, two rounds, nothing is written")
    parser.add_argument(
        "--only", action="append", help="part of a model's name; the other rows stay, if measured here today"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--repeats", type=int, default=7, help="rounds of timing, fewer for slow models")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    chosen = QUICK if options.quick else MODELS
    if options.only:
        chosen = tuple(m for m in chosen if any(part.lower() in m.name.lower() for part in options.only))
        if not chosen:
            names = ", ".join(m.name for m in MODELS)
            raise SystemExit(f"no model has {' or '.join(options.only)} in its name: {names}")
    info = machine()
    rows = {} if options.quick else kept_rows(RESULTS, info, bool(options.only))
    for model in chosen:
        print(f"{model.name} ...", flush=True)
        rows[model.name] = measure(model, options.threads, 2 if options.quick else options.repeats)
        print(line(model.name, rows[model.name]), flush=True)
        gc.collect()
        if not options.quick:  # after each model: a run of hours must not lose what it has
            known = {m.name: rows[m.name] for m in MODELS if m.name in rows}
            RESULTS.parent.mkdir(parents=True, exist_ok=True)
            RESULTS.write_text(json.dumps({"machine": info, "models": known}, indent=1) + "\n")
            write_table(known, info)


def kept_rows(path: Path, info: Mapping[str, Any], some: bool) -> dict[str, Any]:
    """The rows that were measured before on this machine and day: one table does not mix them with others.

    Without ``some`` all rows are measured, so those of another machine or day are left out. With it they would stay
    in the table, and that is refused.
    """
    if not path.exists():
        return {}
    kept = json.loads(path.read_text(encoding="utf-8"))
    differing = [
        f"{key} {kept['machine'].get(key)} (now {value})"
        for key, value in info.items()
        if kept["machine"].get(key) != value
    ]
    if not differing:
        rows: dict[str, Any] = kept["models"]
        return rows
    if some:
        raise SystemExit(
            f"{path} was measured with {', '.join(differing)}: one table does not mix that; measure all models, or "
            "move the file away"
        )
    return {}


def measure(model: Model, threads: int, repeats: int) -> dict[str, Any]:
    """One row of the table."""
    module, make = build(model)
    result: dict[str, Any] = {"source": model.source, "threads": threads}
    result["parameters"] = sum(p.numel() for p in module.parameters())
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(*make(1).values())
    result["gmacs"] = counter.get_total_flops() / 2e9
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        graph = export_graph("model", module, make(2), ["out"])
        with WeightsPool(Path(folder)) as pool:
            pool.save(graph.model, "model.onnx")
        result["export_seconds"] = time.perf_counter() - started
        del graph
        gc.collect()
        result["onnx_bytes"] = sum(f.stat().st_size for f in Path(folder).iterdir())
        check_file(Path(folder) / "model.onnx")
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        session = ort.InferenceSession(Path(folder) / "model.onnx", options, providers=["CPUExecutionProvider"])
        result["difference"] = difference(session, module, make(3))
        for batch in (1, 8):
            result[f"batch_{batch}"] = timing(session, module, make(batch), repeats)
    return result


def build(model: Model) -> tuple[nn.Module, Callable[[int], dict[str, Tensor]]]:
    """The module as a bundle would have it, and a maker of its inputs."""
    generator = torch.Generator().manual_seed(0)
    if model.kind == "classifier":
        source = resolve_classifier(model.source, image_size=(model.size, model.size))
        shape = (3, model.size, model.size)
        return ClassifierModule(source.model).eval(), lambda n: {"image": torch.rand((n, *shape), generator=generator)}
    with tempfile.TemporaryDirectory() as folder:
        config = {"_class_name": "UNet2DModel", **DDPM_CIFAR10}
        scheduler = {"_class_name": "DDPMScheduler", "beta_schedule": "linear", "num_train_timesteps": 1000}
        (Path(folder) / "config.json").write_text(json.dumps(config))
        (Path(folder) / "scheduler_config.json").write_text(json.dumps(scheduler))
        unet = resolve_diffusion(model.source.format(ddpm=folder))
    assert unet.image is not None
    shape = unet.image

    def inputs(n: int) -> dict[str, Tensor]:
        return {"x": torch.randn((n, *shape), generator=generator), "t": torch.linspace(20.5, 700.0, n)}

    return UnetModule(unet.model).eval(), inputs


def difference(session: Any, module: nn.Module, inputs: Mapping[str, Tensor]) -> float:
    """Largest difference of the graph to PyTorch, on a batch of another size than the traced one."""
    with torch.no_grad():
        wanted = module(*inputs.values()).numpy()
    got = session.run(None, {k: v.numpy() for k, v in inputs.items()})[0]
    return float(np.abs(got - wanted).max())


def timing(session: Any, module: nn.Module, inputs: Mapping[str, Tensor], repeats: int) -> dict[str, float]:
    """Milliseconds a call, medians of rounds in which every candidate runs once."""
    feeds = {k: v.numpy() for k, v in inputs.items()}
    last = list(inputs.values())
    wide = [v.contiguous(memory_format=torch.channels_last) if v.ndim == 4 else v for v in last]

    def eager(values: list[Tensor]) -> Callable[[], Any]:
        def call() -> Any:
            with torch.no_grad():
                return module(*values)

        return call

    candidates: dict[str, Callable[[], Any]] = {"onnxruntime": lambda: session.run(None, feeds), "eager": eager(last)}
    started = time.perf_counter()
    for run in candidates.values():
        run()
    affordable = max(1, min(repeats, int(BUDGET / 2 / (time.perf_counter() - started))))
    result: dict[str, float] = {"rounds": affordable}
    first = interleaved(candidates, affordable, warmup=0)
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    wide_candidates = {"onnxruntime": candidates["onnxruntime"], "channels_last": eager(wide)}
    second = interleaved(wide_candidates, affordable, warmup=int(affordable > 1))
    module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    result["onnxruntime_ms"] = 1e3 * min(first.median("onnxruntime"), second.median("onnxruntime"))
    result["eager_ms"], result["channels_last_ms"] = 1e3 * first.median("eager"), 1e3 * second.median("channels_last")
    result["speedup"] = min(first.ratio("eager", "onnxruntime"), second.ratio("channels_last", "onnxruntime"))
    return result


def line(name: str, row: Mapping[str, Any]) -> str:
    """One line of the table."""
    cells = [
        name,
        f"{row['parameters'] / 1e6:.1f}",
        f"{row['gmacs']:.2f}",
        f"{row['export_seconds']:.0f}",
        f"{row['onnx_bytes'] / 1e6:.0f}",
        f"{row['difference']:.1e}",
    ]
    for batch in (1, 8):
        t = row[f"batch_{batch}"]
        torch_ms = min(t["eager_ms"], t["channels_last_ms"])
        cells.append(f"{t['onnxruntime_ms']:.1f} / {torch_ms:.1f} ({t['speedup']:.2f}x)")
    return f"| {' | '.join(cells)} |"


def write_table(rows: Mapping[str, Mapping[str, Any]], info: Mapping[str, Any]) -> None:
    """Put the rows into docs/models.md, between the two marks."""
    threads = next(iter(rows.values()))["threads"]
    lines = [
        BEGIN,
        f"{info['date']}, {info['cpu']}, {threads} threads, torch {info['torch']}, ONNX Runtime {info['onnxruntime']}.",
        "",
        "| model | M parameters | GMACs a call | export, s | ONNX, MB | largest difference | batch 1: ONNX Runtime / "
        "PyTorch, ms | batch 8, ms |",
        "|---|---|---|---|---|---|---|---|",
        *(line(name, row) for name, row in rows.items()),
        END,
    ]
    text = TABLE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise SystemExit(f"{TABLE} has lost the marks around its table: {BEGIN} and {END}")
    TABLE.write_text(before + "\n".join(lines) + after, encoding="utf-8")


if __name__ == "__main__":
    main()
