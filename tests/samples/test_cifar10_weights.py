"""What ships with the CIFAR-10 sample is small, is what its page says, and reads images."""

from __future__ import annotations

import numpy as np
import torch

from samples.cifar10.data import shipped_images
from samples.cifar10.models import WEIGHTS, load_classifier, load_unet
from samples.cifar10.training import alpha_bar


def test_weights_and_images_are_small() -> None:
    files = list(WEIGHTS.glob("*.safetensors"))
    assert {f.name for f in files} == {"classifier.safetensors", "unet.safetensors"}
    assert sum(f.stat().st_size for f in files) < 12_000_000
    images, labels = shipped_images()
    assert images.shape == (200, 3, 32, 32)
    assert np.bincount(labels).tolist() == [20] * 10


def test_the_classifier_reads_the_shipped_images() -> None:
    images, labels = shipped_images()
    with torch.no_grad():
        right = load_classifier()(torch.from_numpy(images)).argmax(1).numpy() == labels
    assert right.mean() > 0.85


def test_the_unet_denoises_better_than_one_number() -> None:
    images = 2 * torch.from_numpy(shipped_images()[0][:32]) - 1
    bar = float(alpha_bar()[60])
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    noisy = bar**0.5 * images + (1 - bar) ** 0.5 * noise
    with torch.no_grad():
        epsilon = load_unet()(noisy, torch.full((32,), 60.0))
    error = float((epsilon - noise).square().mean())
    assert error < 0.17  # multiplied by the best number: 0.85; the best linear denoiser: 0.19
