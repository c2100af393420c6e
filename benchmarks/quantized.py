"""`python -m benchmarks.quantized [--out out/quantized.json] [--quick]`: the INT8 step graph against FP32 and PyTorch.

The network is the CIFAR-10 UNet of DDPM (35.7 M parameters) with random weights: speed does not depend on them. Whether
decisions survive is measured on trained networks (`edgepure quantize`), not here. `--without-amx` keeps both sides from
the matrix units of the processor, as on one that has none.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from edgepure.atomic import write_text
from edgepure.bundle import Bundle
from edgepure.measure import interleaved
from edgepure.purifier import Purifier
from edgepure_calibration.quantize.candidate import CandidatePurifier, build
from edgepure_calibration.quantize.kernels import KernelChoice, KernelName, fastest_kernel
from edgepure_calibration.quantize.ranges import measure_ranges
from edgepure_calibration.quantize.recording import record
from edgepure_calibration.quantize.speed import step_calls
from edgepure_export.qdq import SCHEMES

from . import ddpm_unet
from .__main__ import machine

#: Images and calls that the ranges of the activations come from.
IMAGES, CALLS = 4, 32
#: What each ratio has to reach, and what it compares.
GOALS = {
    "int8_vs_fp32_b1": (1.8, "FP32 / INT8 step call, ONNX Runtime, batch 1"),
    "int8_vs_fp32_b8": (1.8, "FP32 / INT8 step call, ONNX Runtime, batch 8"),
    "int8_vs_compiled_bf16_b1": (1.5, "torch.compile bf16 UNet call / INT8 step call, batch 1"),
    "int8_vs_compiled_bf16_b8": (1.5, "torch.compile bf16 UNet call / INT8 step call, batch 8"),
    "int8_vs_channels_last_bf16_b1": (1.0, "the same with the network and its input in channels_last, batch 1"),
    "int8_vs_channels_last_bf16_b8": (1.0, "the same with the network and its input in channels_last, batch 8"),
}


def compiled_bf16(unet: torch.nn.Module, shape: tuple[int, int, int], batch: int) -> dict[str, Callable[[], object]]:
    """UNet calls by torch.compile in bf16, in the default memory layout and in channels_last; compiled and warm."""
    calls: dict[str, Callable[[], object]] = {}
    layouts = {"compiled_bf16": torch.contiguous_format, "channels_last_bf16": torch.channels_last}
    for name, layout in layouts.items():
        torch._dynamo.reset()
        network = ddpm_unet.DdpmUnet().eval()
        network.load_state_dict(unet.state_dict())
        compiled = torch.compile(network.to(torch.bfloat16).to(memory_format=layout))
        x = torch.randn(batch, *shape, generator=torch.Generator().manual_seed(0))
        x, t = x.to(torch.bfloat16).to(memory_format=layout), torch.full((batch,), 100.0, dtype=torch.bfloat16)

        def call(compiled: Callable[..., object] = compiled, x: torch.Tensor = x, t: torch.Tensor = t) -> object:
            with torch.inference_mode():
                return compiled(x, t)

        call()
        calls[name] = call
    return calls


def int8_purifier(
    bundle: Bundle, fp32: Purifier, work: Path, kernel: KernelName | None
) -> tuple[CandidatePurifier, dict[str, object]]:
    """The bundle with INT8 graphs, their ranges measured on trajectories of random images. Kernel None: the fastest."""
    images = np.random.default_rng(0).random((IMAGES, *fp32.image_shape)).astype(np.float32)
    samples = record(fp32, [fp32.preset("heterogeneous")], images, CALLS, seed=1)
    work.mkdir(parents=True, exist_ok=True)
    ranges = measure_ranges(bundle.graph_path("step"), SCHEMES["int8", "cpu"], samples, work)
    choice = (
        KernelChoice(kernel, ()) if kernel else fastest_kernel(bundle, "step", fp32.plan("heterogeneous"), ranges, work)
    )
    candidate = build(bundle, "int8", "cpu", work / "int8", ranges, graphs=("step",), scheme=choice.scheme)
    return CandidatePurifier(bundle, candidate), {**candidate.reports["step"], "kernel": asdict(choice)}


def measure(
    fp32: Purifier, int8: Purifier, unet: torch.nn.Module, batch: int, rounds: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Ratios and milliseconds at one batch size, all candidates side by side in the same rounds."""
    plan = fp32.plan("heterogeneous")
    mine = {name: step_calls(p.stepper("step"), plan, batch) for name, p in (("fp32", fp32), ("int8", int8))}
    peers = {"fp32": lambda: mine["fp32"](1), **compiled_bf16(unet, fp32.image_shape, batch)}
    times = interleaved({"int8": lambda: mine["int8"](1), **peers}, rounds, warmup=3)
    ratios = {f"int8_vs_{name}_b{batch}": times.ratio(name, "int8") for name in peers}
    return ratios, {name: 1e3 * times.median(name) for name in times.times}


def table(results: dict[str, float]) -> str:
    """The table as Markdown."""
    lines = ["| measure | median | goal | what |", "|---|---|---|---|"]
    lines += [f"| {name} | {results[name]:.3f} | >= {goal} | {what} |" for name, (goal, what) in GOALS.items()]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/quantized.json"))
    parser.add_argument("--work", type=Path, default=Path("out/bench"), help="where the networks are kept")
    parser.add_argument("--quick", action="store_true", help="few rounds: to see that it runs, not to be quoted")
    parser.add_argument("--without-amx", action="store_true", help="PyTorch without AMX, INT8 by the direct kernel")
    options = parser.parse_args()
    if options.without_amx:
        os.environ["ONEDNN_MAX_CPU_ISA"] = "AVX512_CORE_BF16"  # read when PyTorch makes its first convolution
    rounds = 3 if options.quick else 15
    info = machine()
    print(f"{info['cpu']}, {info['cores']} cores, torch {info['torch']}, onnxruntime {info['onnxruntime']}", flush=True)
    path, unet = ddpm_unet.build(options.work / "ddpm")
    bundle = Bundle.open(path)
    results: dict[str, float] = {}
    details: dict[str, object] = {"machine": info, "rounds": rounds, "without_amx": options.without_amx}
    with Purifier(bundle) as fp32:
        kernel: KernelName | None = "direct" if options.without_amx else None
        int8, details["int8"] = int8_purifier(bundle, fp32, options.work / "ddpm_int8", kernel)
        with int8:
            for batch in (1, 8):
                ratios, details[f"milliseconds_b{batch}"] = measure(fp32, int8, unet, batch, rounds)
                results |= ratios
                print("  ".join(f"{name} {value:.3f}" for name, value in ratios.items()), flush=True)
                print(f"  milliseconds a call: {details[f'milliseconds_b{batch}']}", flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_text(options.out, json.dumps({**results, "details": details}, indent=1) + "\n")
    print(table(results))
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()
