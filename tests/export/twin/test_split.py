"""The mask of a noised copy in PyTorch: what the engine computes, and gradients go through it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

import edgepure
from edgepure import Preset
from edgepure.demo import demo_bundle, demo_images
from edgepure.rows.noise import SeededNoise
from edgepure_export.twin.twin import load_twin

SPLIT: dict[str, Any] = {"method": {"method": "split", "sigma": 0.25, "strong_steps": 2}, "mask": {"area": 0.5}}


def test_twin_and_engine_agree_on_masks_and_images() -> None:
    images = demo_images().clean[:4]
    preset = Preset.parse({**SPLIT, "votes": {"count": 2, "rule": "majority"}})
    with torch.no_grad():
        first, second = load_twin(demo_bundle()).run_votes(torch.from_numpy(images), preset, SeededNoise(3))
    with edgepure.load(demo_bundle(), threads=1) as purifier:
        (found, *_), results = purifier.run(images[:1], SPLIT, noise=3), purifier.run(images, SPLIT, noise=3)
    assert first.mask is not None and second.mask is not None
    masks = np.stack([result.mask for result in results])
    assert (first.mask[:, 0].numpy().astype(bool) != masks).mean() < 0.01  # pixels that tie at the edge
    assert (first.mask != second.mask).any()
    same = (first.mask[:, 0].numpy().astype(bool) == masks).all(axis=(1, 2))
    assert same.any()
    purified = np.stack([result.image for result in results])
    np.testing.assert_allclose(first.purified.numpy()[same], purified[same], atol=2e-4)
    np.testing.assert_array_equal(found.image, results[0].image)


def test_gradients_reach_the_image_through_both_copies() -> None:
    x = torch.from_numpy(demo_images().clean[:1]).requires_grad_(True)
    found = load_twin(demo_bundle()).run_preset(x, Preset.parse(SPLIT), SeededNoise(1))
    assert found.mask is not None
    (gradient,) = torch.autograd.grad(found.purified.square().sum(), x)
    inside = found.mask > 0.5
    assert gradient.isfinite().all() and gradient[inside].abs().max() > 0.0 and gradient[~inside].abs().max() > 0.0
