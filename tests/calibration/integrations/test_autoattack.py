"""The real AutoAttack: it attacks the defended classifier, and our own attacks are not weaker than its."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import real_autoattack as real
import torch
from torch import Tensor

from edgepure.demo import demo_bundle, demo_images
from edgepure_calibration.attacks import APGD, Ball, Square
from edgepure_calibration.attacks.expectation import Logits
from edgepure_calibration.attacks.losses import LOSSES, LossName
from edgepure_calibration.integrations import PurifiedClassifier
from edgepure_export.twin.twin import load_twin

real.library()

ONE_ROW = {"method": {"method": "uniform", "t_star": 60, "steps": 1, "sampler": "ddim"}}


def images(count: int) -> Tensor:
    return torch.from_numpy(demo_images().clean[:count].copy())


def labels(count: int) -> Tensor:
    return torch.from_numpy(demo_images().labels[:count].copy())


def right(model: Logits, batch: Tensor) -> Tensor:
    with torch.no_grad():
        return model(batch).argmax(1) == labels(len(batch))


@pytest.fixture(scope="module")
def plain() -> Logits:
    """The classifier alone: deterministic."""
    twin = load_twin(demo_bundle())
    for network in twin.networks:
        network.requires_grad_(False)
    return twin.logits


@pytest.fixture(scope="module")
def known() -> PurifiedClassifier:
    """A defence whose noise the attacker knows: deterministic too."""
    return PurifiedClassifier.from_bundle(demo_bundle(), ONE_ROW, noise="fixed", seed=1, checkpointing=False)


def test_version_rand_on_the_defence() -> None:
    """APGD with cross-entropy and DLR, averaged over the noise, which is new in every pass."""
    model = PurifiedClassifier.from_bundle(demo_bundle(), ONE_ROW, seed=1, checkpointing=False)
    attack = real.auto_attack(model, norm="Linf", eps=0.15, version="rand", seed=0)
    assert list(attack.attacks_to_run) == ["apgd-ce", "apgd-dlr"]
    adversarial = real.run(attack, images(8), labels(8))
    assert adversarial.shape == images(8).shape
    assert 0.0 <= float(adversarial.min()) <= float(adversarial.max()) <= 1.0
    assert (adversarial - images(8)).abs().max() <= 0.15 + 1e-6
    before, after = (right(model, x).sum() for x in (images(8), adversarial))
    assert before >= 7
    assert after < before, "weak noise and exact gradients: it must find something"
    assert not model.training


def test_gradients_and_queries_on_known_noise(known: PurifiedClassifier) -> None:
    attack = real.auto_attack(
        known, norm="Linf", eps=0.15, version="custom", attacks_to_run=["apgd-ce", "square"], seed=0
    )
    adversarial = real.run(attack, images(8), labels(8))
    assert (adversarial - images(8)).abs().max() <= 0.15 + 1e-6
    assert right(known, adversarial).sum() < right(known, images(8)).sum()


@pytest.mark.parametrize("loss", ["ce", "dlr"])
@pytest.mark.parametrize(("eps", "steps"), [(0.05, 100)])
def test_our_apgd_on_the_plain_classifier(
    loss: LossName, eps: float, steps: int, plain: Logits, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare(plain, 24, eps, steps, loss, monkeypatch)


@pytest.mark.parametrize("loss", ["ce", "dlr"])
def test_our_apgd_on_known_noise(loss: LossName, known: PurifiedClassifier, monkeypatch: pytest.MonkeyPatch) -> None:
    compare(known, 12, 0.1, 34, loss, monkeypatch)


def compare(model: Logits, count: int, eps: float, steps: int, loss: LossName, monkeypatch: pytest.MonkeyPatch) -> None:
    """Same start, same steps: as many images fall, and no image keeps clearly less loss."""
    x, y = images(count), labels(count)
    begin = real.start(x, eps, 5)
    torch.manual_seed(5)
    theirs, left, loss_of_theirs = real.single_run(
        real.apgd(model, norm="Linf", eps=eps, n_iter=steps, loss=loss), x, y
    )
    monkeypatch.setattr(Ball, "start", lambda self, centre, seed: begin)
    ours = APGD(eps=eps, steps=steps, loss=loss)(model, x, y)
    with torch.no_grad():
        mine, its = (LOSSES[loss](model(z), y) for z in (ours, theirs))
    torch.testing.assert_close(its, loss_of_theirs, rtol=1e-3, atol=1e-4)
    assert int(right(model, ours).sum()) <= int(left.sum()) + 1
    less = mine < its - 0.05 * its.abs() - 1e-3
    assert int(less.sum()) <= count // 10


def test_our_square_with_the_same_queries(plain: Logits) -> None:
    """No more images than the library's attack leaves, and a smaller margin of those that are left."""
    count, eps, queries = 48, 0.1, 150
    x, y = images(count), labels(count)

    def answers(batch: Any) -> Any:
        with torch.no_grad():
            return plain(torch.from_numpy(batch)).numpy()

    ours = Square(eps, queries, recheck=0)(answers, x.numpy(), y.numpy())
    theirs = real.square(plain, norm="Linf", eps=eps, n_queries=queries, seed=0, resc_schedule=True).perturb(x, y)
    assert int((ours.margins > 0).sum()) <= int(right(plain, theirs).sum())
    assert ours.queries <= queries + 1
    assert np.abs(ours.images - x.numpy()).max() <= eps + 1e-6
