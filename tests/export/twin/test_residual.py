"""The twin finds the patches that the runtime finds, with its noise, and can be attacked through that."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny_models
import torch

import edgepure
from edgepure import Preset, SeededNoise
from edgepure_export.twin.twin import load_twin

RESIDUAL = Preset.parse(
    {
        "method": {"method": "heterogeneous", "t_l": 80, "t_s": 40, "stage1_steps": 2, "stage2_steps": 2},
        "mask": {"source": "residual", "area": 0.25, "residual": {"levels": [30, 90], "window": 3}},
        "votes": {"count": 2},
    }
)


def test_masks_and_images_are_those_of_the_runtime(tiny_bundle: Path) -> None:
    images = tiny_models.images(4, seed=3)
    with edgepure.load(tiny_bundle, threads=1) as purifier:
        found = purifier.run(images.numpy(), RESIDUAL, noise=9)
    with torch.no_grad():
        twin = load_twin(tiny_bundle).run_votes(images, RESIDUAL, SeededNoise(9))
    masks = np.stack([r.mask for r in found if r.mask is not None])
    assert twin[0].mask is not None
    same = masks == (twin[0].mask[:, 0].numpy() > 0.5)
    assert same.mean() > 0.99, "rounding may turn a pixel at the cut"
    alike = [i for i in range(4) if same[i].all()]
    assert alike
    for i in alike:
        np.testing.assert_allclose(found[i].image, twin[0].purified[i].numpy(), atol=2e-5)
    assert twin[1].mask is not None and torch.equal(twin[0].mask, twin[1].mask)


@pytest.mark.parametrize("gradient", ["none", "soft"])
def test_a_gradient_goes_through_the_mask_if_asked_for(tiny_bundle: Path, gradient: str) -> None:
    twin = load_twin(tiny_bundle)
    images = tiny_models.images(2).requires_grad_(True)
    assert RESIDUAL.mask is not None
    mask = twin.residual_mask(images, RESIDUAL.mask, SeededNoise(1), gradient=gradient)  # type: ignore[arg-type]
    assert mask.requires_grad == (gradient == "soft")
    if gradient == "soft":
        (found,) = torch.autograd.grad(mask.sum(), images)
        assert float(found.abs().max()) > 0.0
        hard = twin.residual_mask(images, RESIDUAL.mask, SeededNoise(1))
        assert torch.equal(hard > 0.5, mask.detach() >= 0.5), "the surrogate is cut where the mask is"
