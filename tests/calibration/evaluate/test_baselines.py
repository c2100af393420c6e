"""Baselines are attacked like presets: gradients go through them, and the deployed classifier answers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from codes import raises_code

import edgepure
from edgepure import SeededNoise
from edgepure.demo import demo_bundle, demo_images
from edgepure.images.dataset import LabelledImages
from edgepure_calibration.attacks.attack import Attack
from edgepure_calibration.attacks.known import BUILT_IN
from edgepure_calibration.evaluate import EvaluateSettings, evaluate
from edgepure_calibration.evaluate.baselines import BASELINES, baseline_target, make_baselines
from edgepure_calibration.provider import ProviderSettings
from edgepure_export.twin.twin import load_twin


@pytest.fixture(scope="module")
def purifier() -> Iterator[edgepure.Purifier]:
    with edgepure.load(demo_bundle(), threads=1) as opened:
        yield opened


@pytest.mark.parametrize("name", BASELINES)
def test_twin_and_deployed_answers_agree_and_a_gradient_comes_through(name: str, purifier: edgepure.Purifier) -> None:
    images = demo_images().clean
    (baseline,) = make_baselines([name], images[8:])
    twin = load_twin(demo_bundle(), checkpointing=False)
    target = baseline_target(baseline, purifier, twin, "cpu")
    x = torch.from_numpy(images[:4]).requires_grad_(True)
    logits = target.twin.run_preset(x, target.preset, SeededNoise(3)).logits
    answers = target.purifier.run(images[:4], target.preset, noise=SeededNoise(3))
    np.testing.assert_allclose(logits.softmax(1).detach(), [a.probabilities for a in answers], atol=2e-4)
    (gradient,) = torch.autograd.grad(logits.logsumexp(1).sum(), x)
    assert gradient.isfinite().all() and float(gradient.abs().max()) > 0.0
    filtered = np.stack([a.image for a in answers])
    assert filtered.min() >= 0.0 and filtered.max() <= 1.0 + 1e-6
    assert (np.abs(filtered - images[:4]).max() == 0.0) == (name == "no-defence")
    again = target.purifier.run(images[:4], target.preset, noise=SeededNoise(4))
    changed = np.abs(filtered - np.stack([a.image for a in again])).max()
    assert (changed > 0.0) == (name == "noise")


def test_no_defence_stands_in_its_own_row() -> None:
    digits = demo_images()
    data = LabelledImages(digits.clean, digits.labels, tuple(map(str, range(len(digits)))))
    settings = EvaluateSettings(
        attacks=("pgd", "square"),
        eps=0.1,
        steps=4,
        eot=1,
        images=8,
        worst=2,
        votes=1,
        queries=5,
        noise_seed=1,
        baselines=("no-defence", "projection"),
    )
    found = evaluate(demo_bundle(), data, ["uniform"], settings, provider=ProviderSettings(threads=1))
    plain, projection = found.baselines
    assert [p.name for p in found.baselines] == ["no-defence", "projection"]
    assert plain.unet_calls == 0
    for attack in (plain.clean, *plain.attacks):
        assert attack.by_rule("single").right == attack.plain.right == attack.by_rule("worst").right
        assert attack.agreement is None
    assert plain.attacks[0].plain.fraction < plain.clean.plain.fraction
    assert "principal components of 56 other clean images" in projection.preset.description
    assert not any("--baseline" in line for line in found.not_tested())


@pytest.mark.parametrize("attack", BUILT_IN, ids=lambda attack: attack.name)
def test_every_attack_is_told_of_a_baseline(attack: Attack) -> None:
    """Whether it goes through the defence or past it, its cost and its protocol can be said of one without a UNet."""
    digits = demo_images()
    data = LabelledImages(digits.clean[:2], digits.labels[:2], ("a", "b"))
    settings = EvaluateSettings(
        attacks=(attack.name,), norm=attack.norms[0], eps=0.1, steps=1, eot=1, images=2, votes=1, queries=2,
        noise_seed=1, baselines=("no-defence",), worst=2, patch=0.05,
    )  # fmt: skip
    done = evaluate(demo_bundle(), data, ["uniform"], settings, provider=ProviderSettings(threads=1))
    (plain,), (preset,) = done.baselines, done.presets
    for one in (plain, preset):  # not every attack is of use on each
        assert [found.protocol.attack for found in one.attacks] in ([], [attack.name])


def test_unknown_names_and_too_few_images() -> None:
    images = demo_images().clean
    with raises_code("E-baseline"):
        make_baselines(["sharpen"], images)
    with raises_code("E-baseline"):
        make_baselines(["projection"], images[:10])
