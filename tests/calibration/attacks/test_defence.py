"""What the attacks differentiate: known noise, BPDA, the surrogate, the mask, the score norm."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from codes import raises_code
from torch import Tensor

import edgepure
from edgepure import Preset, SeededNoise
from edgepure.demo import demo_bundle, demo_images
from edgepure_calibration.attacks import PGD, Defence, IdentityBackward, KnownNoise, NormPenalty
from edgepure_calibration.attacks.defence_noise import OneRequest
from edgepure_calibration.attacks.surrogate import surrogate
from edgepure_export.twin.reference import TorchReference
from edgepure_export.twin.twin import load_twin


@pytest.fixture(scope="module")
def twin() -> TorchReference:
    return load_twin(demo_bundle(), checkpointing=False)


@pytest.fixture(scope="module")
def purifier() -> edgepure.Purifier:
    return edgepure.load(demo_bundle(), threads=1)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.from_numpy(demo_images().clean[:4])


def test_known_noise_is_the_noise_that_the_engine_will_use(
    twin: TorchReference, purifier: edgepure.Purifier, images: Tensor
) -> None:
    stream = SeededNoise(123)
    for name in ("uniform", "heterogeneous-ssni"):
        preset = purifier.preset(name)
        with torch.no_grad():
            found = KnownNoise(twin, preset, stream, len(images))(images.repeat(3, 1, 1, 1)).softmax(1)
        for vote in range(3):
            deployed = purifier.run(images.numpy(), preset, votes=1, noise=OneRequest(stream, vote))
            mine = found[4 * vote : 4 * vote + 4].numpy()
            np.testing.assert_allclose(mine, [r.probabilities for r in deployed], atol=2e-4)
        assert not np.allclose(found[:4], found[4:8])  # votes have noises of their own


def test_bpda_sees_the_purified_image_and_hands_the_gradient_through(twin: TorchReference, images: Tensor) -> None:
    preset = Preset.parse({"method": {"method": "uniform", "t_star": 60, "steps": 2}})
    point = images.clone().requires_grad_(True)
    logits = IdentityBackward(twin, preset, seed=5)(point)
    torch.testing.assert_close(logits, Defence(twin, preset, seed=5)(images), rtol=1e-4, atol=1e-4)
    (gradient,) = torch.autograd.grad(logits[:, 0].sum(), point)
    with torch.no_grad():
        purified = Defence(twin, preset, seed=5).purification(images).purified
    inner = purified.clone().requires_grad_(True)
    (wanted,) = torch.autograd.grad(twin.logits(inner)[:, 0].sum(), inner)
    torch.testing.assert_close(gradient, wanted, rtol=1e-3, atol=1e-4)


def test_the_surrogate_keeps_the_levels_and_few_calls(purifier: edgepure.Purifier) -> None:
    for name, preset in purifier.presets.items():
        plan = purifier.planner.plan(preset)
        for calls in (2, 4):
            short = surrogate(preset, plan, calls)
            made = purifier.planner.plan(short)
            assert made.unet_calls == calls, name
            if preset.method.method in ("uniform", "heterogeneous"):
                assert made.levels == plan.levels


def test_a_mask_gradient_changes_the_gradient_and_not_the_deployed_answer(
    twin: TorchReference, purifier: edgepure.Purifier, images: Tensor
) -> None:
    preset, labels = purifier.preset("heterogeneous"), torch.from_numpy(demo_images().labels[:4])
    attack = PGD(0.05, 1)
    found = {
        g: attack.gradient(Defence(twin, preset, 3, g), images, labels) for g in ("none", "soft", "straight_through")
    }  # type: ignore[arg-type]
    assert not torch.allclose(found["none"], found["soft"])
    assert not torch.allclose(found["none"], found["straight_through"])
    with torch.no_grad():
        answers = [Defence(twin, preset, 3, g)(images) for g in ("none", "straight_through")]  # type: ignore[arg-type]
    torch.testing.assert_close(*answers, rtol=1e-4, atol=1e-4)


def test_the_penalty_is_the_score_norm_and_following_it_makes_the_norm_small(
    twin: TorchReference, purifier: edgepure.Purifier
) -> None:
    digits = demo_images()
    preset = purifier.preset("uniform-ssni")
    attacked = torch.from_numpy(digits.adversarial[:8])
    penalty = NormPenalty(twin, preset, weight=2.0, reference=10.0, seed=1)
    with torch.no_grad():
        found = NormPenalty(twin, preset, weight=2.0, reference=10.0, seed=1)(attacked)
        norms = penalty.norms(attacked)
    torch.testing.assert_close(found, 2.0 * norms / 10.0)
    deployed = purifier.score_norms(attacked.numpy(), preset, noise=SeededNoise((1 << 32) + 1))
    np.testing.assert_allclose(norms.numpy(), deployed, rtol=1e-3)
    labels = torch.from_numpy(digits.labels[:4])
    clean = torch.from_numpy(digits.clean[:4])
    kept = {}
    for weight in (0.0, 50.0):
        attack = PGD(0.1, 10, step_size=0.02, seed=2, penalty=NormPenalty(twin, preset, weight, 300.0, seed=4))
        moved = attack(twin.logits, clean, labels)
        kept[weight] = purifier.score_norms(moved.numpy(), preset, noise=9).mean()
    assert kept[50.0] < 0.9 * kept[0.0]
    with raises_code("E-attack-preset"):
        NormPenalty(twin, purifier.preset("uniform"), 1.0, 1.0, 0)
