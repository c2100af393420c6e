"""Train the diffusion UNet of the CIFAR-10 sample.

    python -m samples.cifar10.train_unet --data DATA --run out/cifar10/unet --minutes 120

Stop it whenever you like and start it again with the same line: it goes on from its checkpoint. `--minutes` counts
the time of all its starts together, and the learning rate falls to zero when they are over. With a larger number, a run
that had ended goes on (the rate rises again, as in a warm restart). `samples.cifar10.ship` writes the weights.

Two losses that were tried beside the plain one (docs/results/cifar10.md says what they did): `--snr-gamma 5` weighs
timesteps as in min-SNR (Hang et al. 2023), `--features 0.1 --classifier WEIGHTS` adds the distance of the classifier's
features between the clean image and its estimate.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor
from torch.nn import functional as F

from samples.cifar10.data import load_cifar10
from samples.cifar10.models import WEIGHTS, CifarClassifier, CifarUNet, load_classifier, load_unet
from samples.cifar10.training import Muon, Training, alpha_bar

#: Purification never visits a timestep above the published t_l + U = 203, one-call certificates one above 400.
USUAL_T, HIGHEST_T, USUAL_SHARE = 210, 400, 0.8


def timesteps(count: int, generator: torch.Generator) -> Tensor:
    """Four of five from where purification lives, the others from above."""
    usual = torch.rand(count, generator=generator) < USUAL_SHARE
    low = torch.randint(USUAL_T + 1, (count,), generator=generator)
    return torch.where(usual, low, torch.randint(USUAL_T, HIGHEST_T + 1, (count,), generator=generator))


def rate(progress: float) -> float:
    """Warm up in the first 2 %, then a cosine to zero."""
    return min(1.0, progress / 0.02 + 0.05) * 0.5 * (1 + math.cos(math.pi * progress))


def weights(bar: Tensor, gamma: float) -> Tensor:
    """Min-SNR: min(SNR, gamma) / SNR for a network that predicts epsilon (Hang et al. 2023, section 3.4)."""
    snr = bar / (1 - bar)
    return snr.clamp(max=gamma) / snr


def feature_distance(classifier: CifarClassifier, estimate: Tensor, clean: Tensor) -> Tensor:
    """Mean over the taps of |f(estimate) - f(clean)|^2 / mean |f(clean)|^2, a scalar; images around [-1, 1]."""
    with torch.no_grad():
        wanted = [h.float() for h in classifier.features(clean / 2 + 0.5)]
    found = [h.float() for h in classifier.features(estimate / 2 + 0.5)]
    ratios = [F.mse_loss(a, b) / b.square().mean() for a, b in zip(found, wanted, strict=True)]
    return torch.stack(ratios).mean()


def main(
    data: Annotated[Path, typer.Option(help="CIFAR-10, in any form that data.py reads")],
    run: Annotated[Path, typer.Option(help="folder of the checkpoint and the log")],
    minutes: Annotated[float, typer.Option(help="length of the whole training")] = 120.0,
    steps: Annotated[int | None, typer.Option(help="length in steps instead, to compare losses fairly")] = None,
    batch: Annotated[int, typer.Option()] = 128,
    compiled: Annotated[bool, typer.Option(help="torch.compile the step (a minute at the start)")] = False,
    muon: Annotated[bool, typer.Option(help="orthogonalised updates for the 3 x 3 convolutions")] = False,
    bf16: Annotated[
        bool, typer.Option(help="compute in bfloat16: 2.5 times as fast where the processor has AMX")
    ] = False,
    learning_rate: Annotated[float, typer.Option(help="of AdamW")] = 1.5e-3,
    muon_rate: Annotated[float, typer.Option()] = 0.02,
    start: Annotated[Path | None, typer.Option(help="weights to begin with; default: random ones")] = None,
    snr_gamma: Annotated[float | None, typer.Option(help="min-SNR weights with this gamma")] = None,
    features: Annotated[float, typer.Option(help="weight of the distance of the classifier's features")] = 0.0,
    classifier: Annotated[Path, typer.Option(help="weights of the classifier of --features")] = WEIGHTS,
    threads: Annotated[int, typer.Option()] = 1,
    device: Annotated[str, typer.Option()] = "cpu",
) -> None:
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    images = torch.from_numpy(load_cifar10(data).train_images)
    model = (CifarUNet() if start is None else load_unet(start)).to(device).to(memory_format=torch.channels_last)
    kernels = [p for p in model.parameters() if p.ndim == 4 and p.shape[2] == 3]
    others = [p for p in model.parameters() if not (p.ndim == 4 and p.shape[2] == 3)]
    optimizers: list[torch.optim.Optimizer] = (
        [Muon(kernels, muon_rate, 0.95), torch.optim.AdamW(others, learning_rate, (0.9, 0.99), weight_decay=0.0)]
        if muon
        else [torch.optim.AdamW(model.parameters(), learning_rate, (0.9, 0.99), weight_decay=0.0)]
    )
    training = Training(run, model, optimizers, 0.999, minutes, batch)
    generator = training.generator
    bars = alpha_bar().to(device)
    forward = torch.compile(model) if compiled else model
    judge = load_classifier(classifier).requires_grad_(False).to(device) if features else None

    model.train()
    losses: list[float] = []
    while (progress := training.clock.progress() if steps is None else training.step / steps) < 1:
        chosen = images[torch.randint(len(images), (batch,), generator=generator)].to(device).float() / 127.5 - 1
        flipped = torch.rand(batch, 1, 1, 1, generator=generator).to(device) < 0.5
        clean = torch.where(flipped, chosen.flip(3), chosen)
        t = timesteps(batch, generator).to(device)
        noise = torch.randn(clean.shape, generator=generator).to(device)
        bar = bars[t][:, None, None, None]
        noisy = (bar.sqrt() * clean + (1 - bar).sqrt() * noise).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            predicted = forward(noisy, t.float()).float()
        errors = (predicted - noise).square().mean((1, 2, 3))
        loss = (errors if snr_gamma is None else weights(bars[t], snr_gamma) * errors).mean()
        if judge is not None:
            estimate = (noisy - (1 - bar).sqrt() * predicted) / bar.sqrt()
            with torch.autocast(device, torch.bfloat16, enabled=bf16):
                loss = loss + features * feature_distance(judge, estimate, clean)
        training.descend(loss, rate(progress), others)
        losses.append(float(errors.detach().mean()))
        if training.step % 50 == 0:
            epochs = training.step * batch / len(images)
            mean, spent = sum(losses) / len(losses), training.clock.spent() / 60
            print(f"step {training.step}  epochs {epochs:.2f}  {spent:.1f} min  loss {mean:.5f}", flush=True)
            losses.clear()
    training.save()
    print(f"done: {training.step} steps, {training.step * batch / len(images):.1f} epochs", flush=True)


if __name__ == "__main__":
    typer.run(main)
