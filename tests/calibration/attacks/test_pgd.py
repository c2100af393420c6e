"""The attack of the digits sample: it stays in its ball, follows the gradient, and meets the deployed pipeline."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from edgepure import Preset, ScheduleSpec, SeededNoise
from edgepure_calibration.attacks import PGD, Defence
from edgepure_export.twin.reference import TorchReference


class LinearClassifier(torch.nn.Module):
    """Two classes by the sign of a weighted sum: its gradient is known."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([1.0, -2.0, 0.5, 3.0]), requires_grad=False)

    def forward(self, image: Tensor) -> Tensor:
        score = image.flatten(1) @ self.weight
        return torch.stack([score, -score], dim=1)


class NoNoise(torch.nn.Module):
    """An epsilon-model that shrinks its input, so that gradients flow through it."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return 0.1 * x + 0.0 * t[:, None, None, None]


@pytest.fixture
def images() -> Tensor:
    return torch.from_numpy(np.random.RandomState(0).uniform(0.2, 0.8, (5, 1, 2, 2)).astype(np.float32))


@pytest.fixture
def labels() -> Tensor:
    return torch.tensor([0, 1, 0, 1, 0])


@pytest.fixture
def twin() -> TorchReference:
    schedule = ScheduleSpec().build()
    return TorchReference(NoNoise(), schedule=schedule, classifier=LinearClassifier(), checkpointing=False)


def test_it_ends_in_the_corner_that_the_gradient_points_to(images: Tensor, labels: Tensor) -> None:
    adversarial = PGD(eps=0.1, steps=10)(LinearClassifier(), images, labels)
    # class 0 wants a large score, so its images are pushed against the weight, those of class 1 along it
    sign = torch.where(labels == 0, -1.0, 1.0)[:, None] * torch.tensor([1.0, -1.0, 1.0, 1.0])
    torch.testing.assert_close(adversarial, images + 0.1 * sign.reshape(5, 1, 2, 2))


def test_it_stays_in_the_ball_and_in_the_range(labels: Tensor) -> None:
    images = torch.tensor([0.0, 0.05, 0.95, 1.0]).reshape(1, 1, 2, 2).repeat(5, 1, 1, 1)
    adversarial = PGD(eps=0.1, steps=3, step_size=10.0)(LinearClassifier(), images, labels)
    assert (adversarial - images).abs().max() <= 0.1 + 1e-6
    assert adversarial.min() >= 0.0
    assert adversarial.max() <= 1.0


def test_default_step_size() -> None:
    assert PGD(eps=0.1, steps=40).step == pytest.approx(2.5 * 0.1 / 40)
    assert PGD(eps=0.1, steps=40, step_size=0.02).step == 0.02


def test_no_steps_is_the_random_start_of_the_seed(images: Tensor, labels: Tensor) -> None:
    attack = PGD(eps=0.1, steps=0, step_size=0.01, seed=3)
    first, again = attack(LinearClassifier(), images, labels), attack(LinearClassifier(), images, labels)
    other = replace(attack, seed=4)(LinearClassifier(), images, labels)
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert not torch.equal(first, other)
    assert (first - images).abs().max() <= 0.1 + 1e-6


def test_gradient_is_the_mean_over_the_copies(images: Tensor, labels: Tensor) -> None:
    seen: list[int] = []

    def classifier(copies: Tensor) -> Tensor:
        seen.append(len(copies))
        factor = torch.arange(1, 4).repeat_interleave(len(copies) // 3).float()  # copy k answers k times as loudly
        return LinearClassifier()(copies) * factor[:, None]

    found = PGD(eps=0.1, steps=1, eot=3, batch=2).gradient(classifier, images, labels)
    assert seen == [6, 6, 3]
    expected = torch.zeros_like(images)
    for factor in (1.0, 2.0, 3.0):

        def alone(x: Tensor, k: float = factor) -> Tensor:
            return k * LinearClassifier()(x)

        expected += PGD(eps=0.1, steps=1).gradient(alone, images, labels) / 3
    torch.testing.assert_close(found, expected)


def test_progress_counts_the_steps(images: Tensor, labels: Tensor) -> None:
    steps: list[int] = []
    PGD(eps=0.1, steps=3)(LinearClassifier(), images, labels, steps.append)
    assert steps == [1, 2, 3]


def test_defence_draws_new_noise_at_every_call_and_for_every_copy(twin: TorchReference, images: Tensor) -> None:
    preset = Preset.parse({"method": {"method": "uniform", "t_star": 100, "steps": 2}})
    defence = Defence(twin, preset, seed=5)
    first, second = defence(images), defence(images)
    assert not torch.allclose(first, second)
    copies = defence(images[:1].repeat(2, 1, 1, 1))
    assert not torch.allclose(copies[0], copies[1])
    # the same attacker again draws the same noise
    torch.testing.assert_close(Defence(twin, preset, seed=5)(images), first, rtol=0, atol=0)


def test_defence_differentiates_through_every_row(twin: TorchReference, images: Tensor, labels: Tensor) -> None:
    preset = Preset.parse({"method": {"method": "uniform", "t_star": 50, "steps": 2, "clip": False}})
    attack = PGD(eps=0.1, steps=1)
    found = attack.gradient(Defence(twin, preset, seed=5), images, labels)

    def loss(x: Tensor) -> Tensor:
        noise = SeededNoise((5 << 32) + 1)
        return torch.nn.functional.cross_entropy(twin.run_preset(x, preset, noise).logits, labels, reduction="sum")

    step = 1e-2
    for pixel in range(4):
        shift = torch.zeros(4)
        shift[pixel] = step
        shift = shift.reshape(1, 1, 2, 2)
        numeric = (loss(images + shift) - loss(images - shift)) / (2 * step)
        assert float(found.flatten(1)[:, pixel].sum()) == pytest.approx(float(numeric), rel=0.02, abs=1e-3)


def test_gradient_of_the_whole_pipeline_reaches_the_image(twin: TorchReference, images: Tensor, labels: Tensor) -> None:
    preset = Preset.parse({"method": {"method": "uniform", "t_star": 50, "steps": 2, "clip": False}})
    adversarial = PGD(eps=0.1, steps=5, eot=4)(Defence(twin, preset, seed=5), images, labels)
    with torch.no_grad():
        before, after = (Defence(twin, preset, seed=9)(x) for x in (images, adversarial))
    losses = [torch.nn.functional.cross_entropy(logits, labels) for logits in (before, after)]
    assert losses[1] > losses[0] + 0.1
