"""Attacks of the real torchattacks library on the defended classifier."""

from __future__ import annotations

from typing import Any

import pytest
import real_autoattack
import torch

from edgepure.demo import demo_bundle, demo_images
from edgepure_calibration.attacks import APGD, Ball
from edgepure_calibration.integrations import PurifiedClassifier
from edgepure_export.twin.twin import load_twin

torchattacks = pytest.importorskip("torchattacks")

EPS = 0.15


@pytest.fixture(scope="module")
def model() -> PurifiedClassifier:
    preset = {"method": {"method": "uniform", "t_star": 60, "steps": 1, "sampler": "ddim"}}
    return PurifiedClassifier.from_bundle(demo_bundle(), preset, noise="fixed", seed=1)


ATTACKS: dict[str, Any] = {
    "PGD": lambda model: torchattacks.PGD(model, eps=EPS, alpha=EPS / 4, steps=8),
    "EOTPGD": lambda model: torchattacks.EOTPGD(model, eps=EPS, alpha=EPS / 4, steps=4, eot_iter=2),
    "APGD": lambda model: torchattacks.APGD(model, eps=EPS, steps=8, loss="dlr", eot_iter=1),
    "Square": lambda model: torchattacks.Square(model, eps=EPS, n_queries=20),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_run_and_keep_to_their_ball(name: str, model: PurifiedClassifier) -> None:
    images, labels = (torch.from_numpy(a[:8].copy()) for a in (demo_images().clean, demo_images().labels))
    torch.manual_seed(0)
    adversarial = ATTACKS[name](model)(images, labels)
    assert adversarial.shape == images.shape
    assert adversarial.min() >= 0.0 and adversarial.max() <= 1.0
    assert (adversarial - images).abs().max() <= EPS + 1e-6
    with torch.no_grad():
        before, after = ((model(x).argmax(1) == labels).sum() for x in (images, adversarial))
    assert before >= 7
    if name != "Square":  # 20 queries are few
        assert after < before, "weak noise, known to the attacker: exact gradients must find something"
    assert not model.training


@pytest.mark.parametrize("loss", ["ce", "dlr"])
def test_our_apgd_leaves_no_more_images_than_its(loss: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The classifier alone, the same start (its attack begins as AutoAttack's does), the same number of steps."""
    eps, steps = 0.05, 50
    images, labels = (torch.from_numpy(a[:24].copy()) for a in (demo_images().clean, demo_images().labels))
    twin = load_twin(demo_bundle())
    assert twin.classifier is not None
    twin.classifier.requires_grad_(False)
    begin = real_autoattack.start(images, eps, 0)
    monkeypatch.setattr(Ball, "start", lambda self, centre, seed: begin)
    with torch.no_grad():
        assert bool((twin.logits(images).argmax(1) == labels).all())
    theirs = torchattacks.APGD(twin.classifier, norm="Linf", eps=eps, steps=steps, loss=loss, seed=0)(images, labels)
    ours = APGD(eps=eps, steps=steps, loss=loss)(twin.logits, images, labels)
    with torch.no_grad():
        left = [int((twin.logits(x).argmax(1) == labels).sum()) for x in (ours, theirs)]
    assert left[0] <= left[1] + 1
    assert left[1] < 24
