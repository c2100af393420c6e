"""`python -m benchmarks.quantized [--out out/quantized.json] [--quick]`: lower precision against FP32 and PyTorch.

The network is the CIFAR-10 UNet of DDPM (35.7 M parameters) with random weights: speed does not depend on them. Whether
decisions survive is measured on trained networks (`edgepure quantize`), not here. `--without-amx` keeps ONNX Runtime
and PyTorch from the matrix units of the processor, as on one that has none; OpenVINO cannot be kept from them.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import torch

from edgepure.bundle.bundle import Bundle
from edgepure.files.atomic import write_text
from edgepure.measure import interleaved
from edgepure.purify.purifier import Purifier
from edgepure_calibration.quantize.draft import DraftPurifier, build
from edgepure_calibration.quantize.kernels import KernelChoice, KernelName, fastest_kernel
from edgepure_calibration.quantize.ranges import measure_ranges
from edgepure_calibration.quantize.recording import record
from edgepure_calibration.quantize.speed import step_calls
from edgepure_export.graphs.qdq import scheme_of

from . import ddpm_unet
from .__main__ import machine

#: Images and calls that the ranges of the activations come from.
IMAGES, CALLS = 4, 32
#: What is compared, and with what.
CANDIDATES = {
    "int8": "int8, ONNX Runtime",
    "openvino_fp32": "fp32, OpenVINO",
    "openvino_bf16": "bf16, OpenVINO",
    "openvino_int8": "int8, OpenVINO",
}
PEERS = {
    "fp32": "fp32, ONNX Runtime",
    "compiled_bf16": "torch.compile bf16",
    "channels_last_bf16": "torch.compile bf16, channels_last",
}
#: What int8 has to reach, with the faster one of the two engines.
GOALS = {"fp32": 1.8, "compiled_bf16": 1.5}
BATCHES = (1, 8)


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


def variants(
    bundle: Bundle, fp32: Purifier, work: Path, kernel: KernelName | None, openvino: bool
) -> tuple[dict[str, Purifier], dict[str, object]]:
    """`CANDIDATES` as purifiers. The ranges of int8 are measured on trajectories of random images.

    ``kernel``: of ONNX Runtime; None: the fastest.
    """
    images = np.random.default_rng(0).random((IMAGES, *fp32.image_shape)).astype(np.float32)
    samples = record(fp32, [fp32.preset("heterogeneous")], images, CALLS, seed=1)
    work.mkdir(parents=True, exist_ok=True)
    ranges = measure_ranges(bundle.graph_path("step"), scheme_of("int8", "cpu"), samples, work)
    choice = (
        KernelChoice(kernel, ()) if kernel else fastest_kernel(bundle, "step", fp32.plan("heterogeneous"), ranges, work)
    )
    made = {"int8": build(bundle, "int8", "cpu", work / "int8", ranges, graphs=("step",), scheme=choice.scheme)}
    if openvino:
        for precision in ("bf16", "int8"):
            made[f"openvino_{precision}"] = build(
                bundle,
                precision,
                "openvino",
                work / f"openvino_{precision}",
                ranges if precision == "int8" else None,
                graphs=("step",),
                provider="openvino",
            )
    found: dict[str, Purifier] = {name: DraftPurifier(bundle, c, c.target) for name, c in made.items()}
    if openvino:
        found["openvino_fp32"] = Purifier(bundle, "openvino")
    reports = {name: candidate.reports["step"] for name, candidate in made.items()}
    return found, {"reports": reports, "kernel": asdict(choice)}


def measure(
    fp32: Purifier, candidates: dict[str, Purifier], unet: torch.nn.Module, batch: int, rounds: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Ratios and milliseconds at one batch size, everything side by side in the same rounds."""
    plan = fp32.plan("heterogeneous")
    mine = {
        name: step_calls(purifier.stepper("step"), plan, batch)
        for name, purifier in {"fp32": fp32, **candidates}.items()
    }
    calls = {name: partial(call, 1) for name, call in mine.items()}
    times = interleaved({**calls, **compiled_bf16(unet, fp32.image_shape, batch)}, rounds, warmup=3)
    ratios = {f"{name}_vs_{peer}_b{batch}": times.ratio(peer, name) for name in candidates for peer in PEERS}
    return ratios, {name: 1e3 * times.median(name) for name in times.times}


def table(results: dict[str, float], milliseconds: dict[int, dict[str, float]]) -> str:
    """The table as Markdown, and whether int8 reaches its goals."""
    names = [name for name in CANDIDATES if name in milliseconds[BATCHES[0]]]
    lines = [f"| batch | step call | ms | {' | '.join(f'{what} / it' for what in PEERS.values())} |"]
    lines.append("|---|---|---|" + "---|" * len(PEERS))
    for batch in BATCHES:
        peers = ", ".join(f"{what} {milliseconds[batch][peer]:.3g} ms" for peer, what in PEERS.items())
        for name in names:
            ratios = " | ".join(f"{results[f'{name}_vs_{peer}_b{batch}']:.2f}" for peer in PEERS)
            lines.append(f"| {batch} | {CANDIDATES[name]} | {milliseconds[batch][name]:.3g} | {ratios} |")
        lines.append(f"| {batch} | beside them: {peers} | | | | |")
    for peer, goal in GOALS.items():
        for batch in BATCHES:
            ratio, best = max((results[f"{n}_vs_{peer}_b{batch}"], n) for n in names if n.endswith("int8"))
            verdict = "reached" if ratio >= goal else "missed"
            lines.append(
                f"\nint8 against {PEERS[peer]}, batch {batch}: {ratio:.2f} ({CANDIDATES[best]}), "
                f"asked for {goal:g}: {verdict}"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/quantized.json"))
    parser.add_argument("--work", type=Path, default=Path("out/bench"), help="where the networks are kept")
    parser.add_argument("--quick", action="store_true", help="few rounds: to see that it runs, not to be quoted")
    parser.add_argument("--without-amx", action="store_true", help="PyTorch without AMX, int8 by the direct kernel")
    options = parser.parse_args()
    if options.without_amx:
        os.environ["ONEDNN_MAX_CPU_ISA"] = "AVX512_CORE_BF16"  # read when PyTorch makes its first convolution
    rounds = 3 if options.quick else 15
    info = machine()
    print(", ".join(f"{name} {value}" for name, value in info.items()), flush=True)
    path, unet = ddpm_unet.build(options.work / "ddpm")
    bundle = Bundle.open(path)
    results: dict[str, float] = {}
    milliseconds: dict[int, dict[str, float]] = {}
    with Purifier(bundle) as fp32, ExitStack() as stack:
        kernel: KernelName | None = "direct" if options.without_amx else None
        work = options.work / "ddpm_variants"
        candidates, made = variants(bundle, fp32, work, kernel, openvino=not options.without_amx)
        for purifier in candidates.values():
            stack.enter_context(purifier)
        for batch in BATCHES:
            ratios, milliseconds[batch] = measure(fp32, candidates, unet, batch, rounds)
            results |= ratios
            print(f"batch {batch}, ms: {milliseconds[batch]}", flush=True)
    details = {
        "machine": info,
        "rounds": rounds,
        "without_amx": options.without_amx,
        "milliseconds": milliseconds,
        **made,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_text(options.out, json.dumps({**results, "details": details}, indent=1) + "\n")
    print(table(results, milliseconds))
    print(f"\nwritten to {options.out}")


if __name__ == "__main__":
    main()
