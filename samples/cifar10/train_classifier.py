"""Train the classifier of the CIFAR-10 sample.

    python -m samples.cifar10.train_classifier --data DATA --run out/cifar10/classifier --minutes 120

Few operations to a good accuracy: patches whitened by a fixed first convolution, orthogonalised updates on the sphere
for the kernels in front of batch norms, mirrored in every second epoch instead of at random, label smoothing. It
resumes as `train_unet.py` does. The test accuracy is printed for the log; nothing is chosen by it.

A classifier behind a purifier sees restored images, which are smoother than photographs. With `--purified WEIGHTS` (and
more minutes) the training goes on with every second image noised and restored by the UNet:

    python -m samples.cifar10.train_classifier --data DATA --run out/cifar10/classifier --minutes 150 \\
        --purified samples/cifar10/weights

For certificates, a classifier that has seen images behind strong noise only (`build_bundle --weights` takes the folder
that `ship --keep-statistics` writes):

    python -m samples.cifar10.train_classifier --data DATA --run out/cifar10/certified --minutes 18 --bf16 \\
        --muon-rate 0.02 --learning-rate 1e-3 --start samples/cifar10/weights --purified samples/cifar10/weights \\
        --restored-t 40 400 --every 1
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor
from torch.nn import functional as F

from samples.cifar10.data import load_cifar10
from samples.cifar10.models import CifarClassifier, load_classifier, load_unet
from samples.cifar10.training import Muon, Training, alpha_bar


def rate(progress: float) -> float:
    """Warm up in the first 5 %, then a straight line to zero."""
    return min(1.0, progress / 0.05 + 0.05) * (1 - progress)


def whiten(model: CifarClassifier, images: Tensor) -> None:
    """Set the first convolution to the main directions of 3 x 3 patches, scaled to variance 1, and their opposites."""
    x = (images.float() / 255 - model.mean) / model.std
    patches = F.unfold(x, 3).transpose(1, 2).reshape(-1, 27)
    values, vectors = torch.linalg.eigh(torch.cov(patches.T))
    half = model.stem.out_channels // 2
    kernels = (vectors / (values + 1e-2).sqrt()).T.flip(0)[:half].reshape(half, 3, 3, 3)
    with torch.no_grad():
        model.stem.weight.copy_(torch.cat([kernels, -kernels]))
        model.stem.bias.zero_()  # type: ignore[union-attr]


def augment(images: Tensor, mirrored: Tensor, generator: torch.Generator, reach: int = 2, cut: int = 0) -> Tensor:
    """Mirror where `mirrored` says so, and move by up to `reach` pixels, with the border reflected.

    With `cut`, a square of so many pixels is grey, anywhere (DeVries and Taylor 2017).
    """
    x = torch.where(mirrored[:, None, None, None], images.flip(3), images).float() / 255
    padded = F.pad(x, (reach,) * 4, mode="reflect")
    dy, dx = torch.randint(2 * reach + 1, (2, len(x)), generator=generator)
    rows = (dy[:, None] + torch.arange(32))[:, None, :, None]
    columns = (dx[:, None] + torch.arange(32))[:, None, None, :]
    moved = padded[torch.arange(len(x))[:, None, None, None], torch.arange(3)[None, :, None, None], rows, columns]
    if cut:
        top, left = torch.randint(1 - cut, 32, (2, len(x)), generator=generator)
        row, column = torch.arange(32)[None, :, None] - top[:, None, None], torch.arange(32) - left[:, None, None]
        hidden = (row >= 0) & (row < cut) & (column >= 0) & (column < cut)
        moved = torch.where(hidden[:, None], 0.5, moved)
    return moved


def batches(count: int, size: int, step: int, generator: torch.Generator) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Endless (epoch, indices, mirrored); an image that is mirrored in one epoch is not in the next."""
    first = torch.rand(count, generator=torch.Generator().manual_seed(2)) < 0.5
    epoch = step // (count // size)
    while True:
        order = torch.randperm(count, generator=generator)
        for start in range(0, count - size + 1, size):
            chosen = order[start : start + size]
            yield epoch, chosen, first[chosen] ^ bool(epoch % 2)
        epoch += 1


@torch.no_grad()
def restored(x: Tensor, unet: torch.nn.Module, low: int, high: int, generator: torch.Generator) -> Tensor:
    """Images in [0, 1] after noise of a random timestep and one call of the UNet."""
    t = torch.randint(low, high + 1, (len(x),), generator=generator).to(x.device)
    noise = torch.randn(x.shape, generator=generator).to(x)
    bar = alpha_bar().to(x.device)[t][:, None, None, None]
    noisy = bar.sqrt() * (2 * x - 1) + (1 - bar).sqrt() * noise
    clean: Tensor = (noisy - (1 - bar).sqrt() * unet(noisy, t.float()).float()) / bar.sqrt()
    return (clean / 2 + 0.5).clamp(0, 1)


@torch.no_grad()
def accuracy(model: CifarClassifier, images: Tensor, labels: Tensor, device: str) -> float:
    model.eval()
    right = 0
    for start in range(0, len(images), 500):
        logits = model(images[start : start + 500].to(device).float() / 255)
        right += int((logits.argmax(1).cpu() == labels[start : start + 500]).sum())
    return right / len(images)


def main(
    data: Annotated[Path, typer.Option(help="CIFAR-10, in any form that data.py reads")],
    run: Annotated[Path, typer.Option(help="folder of the checkpoint and the log")],
    minutes: Annotated[float, typer.Option(help="length of the whole training")] = 120.0,
    batch: Annotated[int, typer.Option()] = 250,
    muon_rate: Annotated[float, typer.Option()] = 0.10,
    learning_rate: Annotated[float, typer.Option(help="of AdamW, for the head and the norms")] = 5e-3,
    cut: Annotated[int, typer.Option(help="side of the grey square in every image; for long trainings")] = 0,
    bf16: Annotated[
        bool, typer.Option(help="compute in bfloat16: 3 times as fast where the processor has AMX")
    ] = False,
    purified: Annotated[Path | None, typer.Option(help="weights of a UNet that restores some of the images")] = None,
    restored_t: Annotated[tuple[int, int], typer.Option(help="lowest and highest timestep of --purified")] = (20, 150),
    every: Annotated[int, typer.Option(min=1, help="restore every so-manieth image")] = 2,
    start: Annotated[Path | None, typer.Option(help="weights to begin with; default: random ones")] = None,
    threads: Annotated[int, typer.Option()] = 1,
    device: Annotated[str, typer.Option()] = "cpu",
) -> None:
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    stored_data = load_cifar10(data)
    images, labels = torch.from_numpy(stored_data.train_images), torch.from_numpy(stored_data.train_labels)
    tests, test_labels = torch.from_numpy(stored_data.test_images), torch.from_numpy(stored_data.test_labels)
    model = CifarClassifier() if start is None else load_classifier(start)
    if start is None:
        whiten(model, images[:5000])
    model.stem.weight.requires_grad_(False)
    model.to(device).to(memory_format=torch.channels_last)
    kernels = [p for n, p in model.named_parameters() if p.ndim == 4 and "stem" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim < 4]
    optimizers: list[torch.optim.Optimizer] = [
        Muon(kernels, muon_rate, 0.8, sphere=True),
        torch.optim.AdamW(others, learning_rate, (0.9, 0.99), weight_decay=1e-2),
    ]
    training = Training(run, model, optimizers, 0.99, minutes, batch)
    generator, clock = training.generator, training.clock
    unet = None if purified is None else load_unet(purified).to(device).to(memory_format=torch.channels_last)

    seen = right = 0
    source = batches(len(images), batch, training.step, generator)
    while clock.progress() < 1:
        epoch, chosen, mirrored = next(source)
        x = (
            augment(images[chosen], mirrored, generator, cut=cut)
            .to(device)
            .contiguous(memory_format=torch.channels_last)
        )
        target = labels[chosen].to(device)
        model.train()
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            if unet is not None:
                x[::every] = restored(x[::every], unet, *restored_t, generator)
            logits = model(x).float()
        loss = F.cross_entropy(logits, target, label_smoothing=0.1)
        training.descend(loss, rate(clock.progress()))
        step = training.step
        right, seen = right + int((logits.argmax(1) == target).sum()), seen + batch
        if step % 25 == 0:
            print(
                f"step {step}  epoch {epoch}  {clock.spent() / 60:.1f} min  loss {loss.item():.4f}  "
                f"training accuracy {right / seen:.4f}",
                flush=True,
            )
            seen = right = 0
        if step % 200 == 0:
            print(
                f"epochs {step * batch / 50_000:.2f}  test {accuracy(model, tests, test_labels, device):.4f}",
                flush=True,
            )
    training.save()
    averaged = CifarClassifier().to(device)
    averaged.load_state_dict(training.ema.state)
    print(
        f"done: {training.step} steps, {training.step * batch / 50_000:.1f} epochs, "
        f"test {accuracy(model, tests, test_labels, device):.4f}, "
        f"averaged {accuracy(averaged, tests, test_labels, device):.4f}",
        flush=True,
    )


if __name__ == "__main__":
    typer.run(main)
