"""Train the segmenter and the detector of the scenes: ``python -m samples.scenes.train``, some minutes on two cores.

The diffusion model is that of the digits, which takes images of any size that is a multiple of 4.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from safetensors.torch import save_file
from torch import Tensor, nn

from samples.digits.data import load_digits_split

from .data import make_scenes
from .losses import detection_loss, segmentation_loss
from .models import WEIGHTS, Detector, Segmenter

console = Console(stderr=True)
BATCH, RATE = 16, 4e-3


def fit(model: nn.Module, losses: Callable[[], Tensor], steps: int, name: str) -> None:
    """AdamW, its rate along a half cosine to 0."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / 20, 0.5 + 0.5 * math.cos(math.pi * step / steps))
    )
    for step in range(steps):
        loss = losses()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 20 == 0 or step == steps - 1:
            console.print(f"{name} {step}: {float(loss):.4f}")


def main(
    out: Annotated[Path, typer.Option(help="Where the weights go.")] = WEIGHTS,
    only: Annotated[str, typer.Option(help="segmenter, detector or both.")] = "both",
    steps: Annotated[int, typer.Option(min=1, help="Of each training.")] = 1400,
) -> None:
    """Train on scenes of the training digits; the test digits are held back."""
    made = make_scenes(load_digits_split().train, 4000, seed=1)
    images, pixels, boxes, digits = (torch.from_numpy(a) for a in (made.images, made.pixels, made.boxes, made.digits))
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    segmenter, detector = Segmenter(), Detector()

    def segmenter_loss() -> Tensor:
        chosen = torch.randint(len(images), (BATCH,))
        return segmentation_loss(segmenter(images[chosen]), pixels[chosen])

    def detector_loss() -> Tensor:
        chosen = torch.randint(len(images), (BATCH,))
        return detection_loss(*detector.raw(images[chosen]), boxes[chosen], digits[chosen])

    for name, model, losses in (("segmenter", segmenter, segmenter_loss), ("detector", detector, detector_loss)):
        if only in (name, "both"):
            fit(model, losses, steps, name)
            save_file({k: v.contiguous() for k, v in model.state_dict().items()}, out / f"{name}.safetensors")


if __name__ == "__main__":
    typer.run(main)
