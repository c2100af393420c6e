"""`python -m benchmarks.cifar10 --bundle BUNDLE`: the CIFAR-10 bundle beside the same networks in PyTorch.

Milliseconds of one UNet call and of one decision (mask, six calls, classifier; one vote), batch 1 and 8, every
candidate once in every round of one run. PyTorch runs the sample's modules: eager, channels_last, compiled, and both in
bfloat16 (autocast). edgepure runs every engine and precision that the bundle has here. Ratios are PyTorch's best time
over ours, medians of rounds. Times mean something only on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import nn

import edgepure
from edgepure.files.atomic import write_text
from edgepure.measure import BareUnet, Work, interleaved
from samples.cifar10.build_bundle import twin
from samples.cifar10.data import shipped_images
from samples.cifar10.models import load_classifier, load_unet

from .__main__ import machine

PRESET, BATCHES, T = "heterogeneous-6", (1, 8), 60.0


def torch_calls(batch: int) -> Iterator[tuple[str, Work]]:
    """One UNet call of the module, in every way that PyTorch users know."""
    x, t = torch.randn(batch, 3, 32, 32), torch.full((batch,), T)

    def work(module: Callable[..., Any], x: torch.Tensor, bf16: bool) -> Work:
        def call() -> None:
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                module(x, t)

        return call

    last = x.contiguous(memory_format=torch.channels_last)
    eager, channels_last = load_unet(), load_unet().to(memory_format=torch.channels_last)
    compiled = torch.compile(load_unet().to(memory_format=torch.channels_last))
    yield "torch eager", work(eager, x, False)
    yield "torch channels_last", work(channels_last, last, False)
    yield "torch compile", work(compiled, last, False)
    yield "torch channels_last bf16", work(channels_last, last, True)
    yield "torch compile bf16", work(compiled, last, True)


def torch_decisions(batch: int, preset: edgepure.Preset) -> Iterator[tuple[str, Work]]:
    """One decision of the twin: the same rows in PyTorch."""
    images = torch.from_numpy(shipped_images()[0][:batch])

    def work(unet: nn.Module, bf16: bool) -> Work:
        reference = twin(load_classifier(), unet)

        def decide() -> None:
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                reference.run_preset(images, preset, edgepure.SeededNoise(1))

        return decide

    yield "torch channels_last", work(load_unet(), False)
    yield "torch channels_last bf16", work(load_unet(), True)


def opened(bundle: Path, threads: int) -> Iterator[tuple[str, edgepure.Purifier]]:
    """The bundle on every CPU engine that works here, in every precision that it has for it."""
    precisions = ["fp32", *edgepure.Bundle.open(bundle).manifest.variants]
    for provider in ("cpu", "openvino"):
        for precision in precisions:
            try:
                purifier = edgepure.load(bundle, provider, precision=precision, threads=threads, slots=max(BATCHES))
            except edgepure.ProviderError as error:
                print(f"{provider} {precision}: {error}", flush=True)
                continue
            yield f"{provider} {precision}", purifier


def side_by_side(works: dict[str, Work], repeats: int) -> dict[str, Any]:
    """Milliseconds of each, and the time of PyTorch's fastest over each of ours."""
    times = interleaved(works, repeats, warmup=2)
    theirs = [name for name in works if name.startswith("torch")]
    best = {kind: min((n for n in theirs if n.endswith("bf16") == kind), key=times.median) for kind in (False, True)}
    return {
        "ms": {name: round(1e3 * times.median(name), 3) for name in works},
        "torch_best_fp32": best[False],
        "torch_best": min(theirs, key=times.median),
        "ratio_fp32": {n: round(times.ratio(best[False], n), 3) for n in works if n not in theirs},
        "ratio_any": {n: round(times.ratio(min(theirs, key=times.median), n), 3) for n in works if n not in theirs},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=Path("out/cifar10/bundle"))
    parser.add_argument("--out", type=Path, default=Path("out/cifar10-speed.json"))
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--quick", action="store_true", help="two rounds: to see that it runs, not to be quoted")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    repeats = 2 if options.quick else 15
    found: dict[str, Any] = {"machine": machine() | {"threads": options.threads}, "rounds": repeats}
    with ExitStack() as stack:
        engines = {name: stack.enter_context(p) for name, p in opened(options.bundle, options.threads)}
        images = shipped_images()[0]
        for batch in BATCHES:
            calls: dict[str, Work] = dict(torch_calls(batch))
            for name, purifier in engines.items():
                bare = BareUnet(purifier.engine("unet"), batch)

                def call(bare: BareUnet = bare) -> None:
                    bare(T)
                    bare.wait()

                calls[name] = call
            found[f"call_{batch}"] = side_by_side(calls, repeats)
            preset = next(iter(engines.values())).preset(PRESET)
            decisions: dict[str, Work] = dict(torch_decisions(batch, preset))
            for name, purifier in engines.items():

                def decide(purifier: edgepure.Purifier = purifier, batch: int = batch) -> None:
                    purifier.classify(images[:batch], PRESET, noise=1, votes=1)

                decisions[name] = decide
            found[f"decision_{batch}"] = side_by_side(decisions, repeats)
            print(json.dumps({k: found[f"{k}_{batch}"] for k in ("call", "decision")}, indent=1), flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_text(options.out, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
