"""Rotations and shifts stay small, follow their seed, and the finer field is finer."""

from __future__ import annotations

import torch
from torch import Tensor

from edgepure_calibration.attacks.geometry import moved
from edgepure_calibration.attacks.known import attack_named
from edgepure_calibration.attacks.pgd import PGD


def test_no_motion_is_the_image_and_motion_is_small() -> None:
    images = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(moved(images, torch.zeros(2, 3)), images, atol=1e-5, rtol=0)
    dot = torch.zeros(1, 1, 17, 17)
    dot[0, 0, 8, 8] = 1.0
    shifted = moved(dot, torch.tensor([[0.0, 1.0, 0.0]]))
    assert int(shifted[0, 0, 8].argmax()) == 7 and float(shifted[0, 0, 8, 7]) > 0.99, "one pixel and no more"
    turned = moved(images, torch.tensor([[1.0, 0.0, 0.0]]).repeat(2, 1))
    assert 0.0 <= float(turned.min()) <= float(turned.max()) <= 1.0
    torch.testing.assert_close(turned[..., 7:9, 7:9], images[..., 7:9, 7:9], atol=0.35, rtol=0)  # the middle stays


def test_the_best_iterate_is_kept_where_the_last_is_not_the_best() -> None:
    def logits(images: Tensor) -> Tensor:
        score = torch.sin(40.0 * images.sum((1, 2, 3)))
        return torch.stack([score, -score], dim=1)

    images, labels = torch.full((1, 1, 2, 2), 0.5), torch.tensor([0])
    scores = []
    for keep in (False, True):
        found = PGD(eps=0.2, steps=15, seed=2, step_size=0.05, keep_best=keep)(logits, images, labels)
        scores.append(float(logits(found)[0, 0]))
    assert scores[1] <= scores[0] and scores[1] < -0.9


def test_the_finer_field_says_so() -> None:
    assert (attack_named("low-frequency").finer, attack_named("low-frequency-fine").finer) == (1, 2)  # type: ignore[attr-defined]
