"""The machine's own ceilings, measured: what a large matrix product and a large copy reach through PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch

from .context import Context
from .meters import Meter, timed
from .networks import exact, need_torch

#: Precision -> dtype of both matrices. Random values: zeros run faster and flatter.
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def matrix_peak(device: str, quick: bool = False) -> dict[str, float]:
    """FLOP/s of a square matrix product by precision (fp32 without TF32). Raises CannotRunError if PyTorch cannot."""
    need_torch(device)
    size = 8192 if device == "cuda" else 256
    found = {}
    for name, dtype in DTYPES.items():
        if device == "cpu" and dtype != torch.float32:
            continue
        a, b = (torch.randn((size, size), device=device).to(dtype) for _ in range(2))
        wait = torch.cuda.synchronize if device == "cuda" else (lambda: None)
        with exact(device):
            timing = timed(partial(torch.matmul, a, b), wait, Meter("none"), 0.3 if quick else 2.0, rounds=5)
        found[name] = 2.0 * size**3 / (timing.ms * 1e-3)
    return found


def peak(context: Context) -> None:
    """The section: matrix products, and the bandwidth of the memory."""

    def products() -> Mapping[str, float]:
        return {f"{name}_tflops": value / 1e12 for name, value in matrix_peak(context.device, context.quick).items()}

    def bandwidth() -> Mapping[str, float]:
        need_torch(context.device)
        count = 1 << 30 if context.device == "cuda" else 1 << 22
        source = torch.randn(count // 4, device=context.device)
        target = torch.empty_like(source)
        wait = torch.cuda.synchronize if context.device == "cuda" else (lambda: None)
        timing = timed(lambda: target.copy_(source), wait, Meter("none"), 0.5, rounds=5)
        return {"gigabytes_a_second_read_and_written": 2 * count / (timing.ms * 1e-3) / 1e9}

    context.run("matrix product", products, needs=10)
    context.run("copy on the device", bandwidth, needs=5)
