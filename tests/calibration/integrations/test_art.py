"""The real Adversarial Robustness Toolbox: purification as its preprocessor, and the engine as its black box."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from codes import raises_code
from numpy.typing import NDArray
from torch import nn

import edgepure
from edgepure.bundle.bundle import Bundle
from edgepure.demo import demo_bundle, demo_images
from edgepure_calibration.integrations.blackbox import BlackBox
from edgepure_export.twin.reference import TorchReference
from edgepure_export.twin.twin import load_twin

pytest.importorskip("art")

from art.attacks.evasion import HopSkipJump, ProjectedGradientDescent, SquareAttack
from art.estimators.classification import BlackBoxClassifierNeuralNetwork, PyTorchClassifier

from edgepure_calibration.integrations import PurificationPreprocessor

COUNT = 6


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.open(demo_bundle())


@pytest.fixture(scope="module")
def twin(bundle: Bundle) -> TorchReference:
    return load_twin(bundle)


def images() -> NDArray[np.float32]:
    return demo_images().clean[:COUNT].copy()


def one_hot() -> NDArray[np.float32]:
    return np.eye(10, dtype=np.float32)[demo_images().labels[:COUNT]]


def classifier(twin: TorchReference, bundle: Bundle, preset: str = "uniform", **options: Any) -> PyTorchClassifier:
    defence = PurificationPreprocessor(twin, bundle.manifest.presets[preset], noise="fixed", seed=1, **options)
    return PyTorchClassifier(
        model=twin.classifier,
        loss=nn.CrossEntropyLoss(reduction="sum"),
        input_shape=(1, 16, 16),
        nb_classes=10,
        clip_values=(0.0, 1.0),
        preprocessing_defences=[defence],
        device_type="cpu",
    )


@pytest.mark.parametrize("preset", ["uniform", "heterogeneous"])
def test_predictions_are_of_purified_images(preset: str, twin: TorchReference, bundle: Bundle) -> None:
    target = classifier(twin, bundle, preset)
    defence = target.preprocessing_defences[0]
    source = defence.noise.next()
    with torch.no_grad():
        wanted = twin.logits(twin.purify_preset(torch.from_numpy(images()), defence.preset, source))
        plain = twin.logits(torch.from_numpy(images()))
    found = target.predict(images())
    np.testing.assert_allclose(found, wanted.numpy(), rtol=0, atol=1e-5)
    assert np.abs(found - plain.numpy()).max() > 0.1


def test_exact_gradient_is_autograds(twin: TorchReference, bundle: Bundle) -> None:
    target = classifier(twin, bundle, "heterogeneous", mask_gradient="straight_through")
    defence = target.preprocessing_defences[0]
    leaf = torch.from_numpy(images()).requires_grad_()
    purified = twin.purify_preset(leaf, defence.preset, defence.noise.next(), mask_gradient="straight_through")
    loss = nn.functional.cross_entropy(twin.logits(purified), torch.from_numpy(one_hot()), reduction="sum")
    (wanted,) = torch.autograd.grad(loss, leaf)
    np.testing.assert_allclose(target.loss_gradient(images(), one_hot()), wanted.numpy(), rtol=1e-3, atol=1e-5)


def test_identity_gradient_is_the_classifiers_at_the_purified_image(twin: TorchReference, bundle: Bundle) -> None:
    target = classifier(twin, bundle, gradient="identity")
    defence = target.preprocessing_defences[0]
    with torch.no_grad():
        purified = twin.purify_preset(torch.from_numpy(images()), defence.preset, defence.noise.next())
    leaf = purified.requires_grad_()
    loss = nn.functional.cross_entropy(twin.logits(leaf), torch.from_numpy(one_hot()), reduction="sum")
    (wanted,) = torch.autograd.grad(loss, leaf)
    np.testing.assert_allclose(target.loss_gradient(images(), one_hot()), wanted.numpy(), rtol=1e-3, atol=1e-5)
    exact = classifier(twin, bundle).loss_gradient(images(), one_hot())
    assert np.abs(exact - wanted.numpy()).max() > 1e-3


def test_the_preprocessor_alone(twin: TorchReference, bundle: Bundle) -> None:
    """As ART calls it on arrays: purified images, the labels as they were."""
    defence = PurificationPreprocessor(twin, bundle.manifest.presets["uniform"])
    assert (defence.apply_fit, defence.apply_predict, defence.is_fitted) == (False, True, True)
    purified, labels = defence(images(), one_hot())
    assert purified.dtype == np.float32
    assert purified.shape == images().shape
    assert purified.min() >= 0.0 and purified.max() <= 1.0
    np.testing.assert_array_equal(labels, one_hot())
    again, _ = defence(images())
    assert not np.array_equal(purified, again)  # secret and new noise by default
    gradient = defence.estimate_gradient(images(), np.ones_like(images()))
    assert gradient.shape == images().shape
    assert np.abs(gradient).max() > 0.0
    with raises_code("E-gradient-unknown"):
        PurificationPreprocessor(twin, bundle.manifest.presets["uniform"], gradient="bpda")  # type: ignore[arg-type]
    with raises_code("E-gradient-unknown"):
        defence.set_params(gradient="bpda")


def test_arts_own_attack(twin: TorchReference, bundle: Bundle) -> None:
    target = classifier(twin, bundle)
    attack = ProjectedGradientDescent(target, eps=0.15, eps_step=0.04, max_iter=8, verbose=False)
    adversarial = attack.generate(images(), one_hot())
    assert np.abs(adversarial - images()).max() <= 0.15 + 1e-6
    before, after = ((target.predict(x).argmax(1) == one_hot().argmax(1)).sum() for x in (images(), adversarial))
    assert after < before


def test_black_box_attacks_on_the_engine() -> None:
    preset = {"method": {"method": "uniform", "t_star": 60, "steps": 1, "sampler": "ddim"}}
    with edgepure.load(demo_bundle(), threads=1) as purifier:
        box = BlackBox(purifier, preset, seed=1)
        target = BlackBoxClassifierNeuralNetwork(box, box.input_shape, box.classes, clip_values=(0.0, 1.0))
        found = target.predict(images())
        assert (found.argmax(1) == one_hot().argmax(1)).sum() >= COUNT - 1
        assert box.queries == COUNT
        attack = SquareAttack(target, eps=0.1, max_iter=5, verbose=False)
        adversarial = attack.generate(images(), one_hot())
        assert np.abs(adversarial - images()).max() <= 0.1 + 1e-6
        assert box.queries > 2 * COUNT
        assert box.unet_calls == box.queries

        decisions = BlackBox(purifier, preset, seed=1, answer="decision")
        target = BlackBoxClassifierNeuralNetwork(
            decisions, decisions.input_shape, decisions.classes, clip_values=(0.0, 1.0)
        )
        HopSkipJump(target, norm=np.inf, max_iter=1, max_eval=10, init_eval=5, init_size=10, verbose=False).generate(
            images()[:1]
        )
        assert decisions.queries > 10
