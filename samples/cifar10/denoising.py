"""How well does the UNet denoise, timestep by timestep, beside denoisers that anybody can write down?

    python -m samples.cifar10.denoising --data DATA

Mean squared error of the clean image's estimate, in units of [-1, 1], on test images. The bounds are of the best
denoiser that multiplies by one number, and of the best linear one (Wiener's, with all covariances of the training
images): both are exact for Gaussian images, and the second one knows everything that an image's second moments say.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import torch
import typer

from edgepure.files import write_text
from samples.cifar10.data import load_cifar10
from samples.cifar10.models import WEIGHTS, load_unet
from samples.cifar10.training import alpha_bar

TIMESTEPS = (5, 10, 25, 50, 75, 100, 125, 150, 200, 250, 300, 400)


def main(
    data: Annotated[Path, typer.Option(help="CIFAR-10, in any form that data.py reads")],
    weights: Annotated[Path, typer.Option()] = WEIGHTS,
    images: Annotated[int, typer.Option(help="Test images")] = 512,
    out: Annotated[Path | None, typer.Option(help="Write the numbers there as JSON")] = None,
    threads: Annotated[int, typer.Option()] = 1,
) -> None:
    """Print the table."""
    torch.set_num_threads(threads)
    stored = load_cifar10(data)
    train = torch.from_numpy(stored.train_images[:20_000].reshape(20_000, -1)).float() / 127.5 - 1
    train -= train.mean(0)
    spectrum = torch.linalg.eigvalsh(train.T @ train / len(train)).clamp_min(0)
    pixel = float(spectrum.mean())  # variance of a pixel around the mean image
    clean = torch.from_numpy(stored.test_images[:images]).float() / 127.5 - 1
    unet, bars = load_unet(weights), alpha_bar()
    generator = torch.Generator().manual_seed(5)
    rows = []
    print("| t | noisy image | one number | best linear | UNet | UNet / best linear | error of epsilon |")
    print("|---|---|---|---|---|---|---|")
    for t in TIMESTEPS:
        bar = float(bars[t])
        noise = (1 - bar) / bar  # variance of the noise, in units of the image
        estimates, epsilons = [], []
        for first in range(0, len(clean), 64):
            part = clean[first : first + 64]
            drawn = torch.randn(part.shape, generator=generator)
            noisy = bar**0.5 * part + (1 - bar) ** 0.5 * drawn
            with torch.no_grad():
                epsilon = unet(noisy, torch.full((len(part),), float(t)))
            estimate = ((noisy - (1 - bar) ** 0.5 * epsilon) / bar**0.5).clamp(-1, 1)
            estimates.append((estimate - part).square().mean((1, 2, 3)))
            epsilons.append((epsilon - drawn).square().mean((1, 2, 3)))
        row = {
            "t": t,
            "noisy": noise,
            "scalar": pixel * noise / (pixel + noise),
            "linear": float((spectrum * noise / (spectrum + noise)).mean()),
            "unet": float(torch.cat(estimates).mean()),
            "epsilon": float(torch.cat(epsilons).mean()),
        }
        rows.append(row)
        print(
            f"| {t} | {row['noisy']:.5f} | {row['scalar']:.5f} | {row['linear']:.5f} | {row['unet']:.5f} | "
            f"{row['unet'] / row['linear']:.2f} | {row['epsilon']:.4f} |"
        )
    if out is not None:
        write_text(out, json.dumps({"images": images, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
