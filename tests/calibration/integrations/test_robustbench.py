"""RobustBench's own functions on the defended classifier."""

from __future__ import annotations

from typing import Any

import pytest
import real_autoattack as real
import torch

from edgepure.demo import demo_bundle, demo_images
from edgepure_calibration.integrations import PurifiedClassifier

pytest.importorskip("robustbench", exc_type=ImportError)

from robustbench import utils

COUNT = 8


@pytest.fixture(scope="module")
def model() -> PurifiedClassifier:
    preset = {"method": {"method": "uniform", "t_star": 60, "steps": 1, "sampler": "ddim"}}
    return PurifiedClassifier.from_bundle(demo_bundle(), preset, noise="fixed", seed=1)


def data() -> tuple[torch.Tensor, torch.Tensor]:
    digits = demo_images()
    return torch.from_numpy(digits.clean[:COUNT].copy()), torch.from_numpy(digits.labels[:COUNT].copy())


def test_clean_accuracy(model: PurifiedClassifier) -> None:
    images, labels = data()
    with torch.no_grad():
        wanted = float((model(images).argmax(1) == labels).float().mean())
    assert utils.clean_accuracy(model, images, labels, batch_size=3) == pytest.approx(wanted)
    assert wanted >= 0.8


def test_benchmark(model: PurifiedClassifier, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its whole benchmark, with our images for its data set and AutoAttack's standard version with few steps.

    Fixed noise: it refuses no randomised defence, but its standard version warns of one.
    """
    evaluation = pytest.importorskip("robustbench.eval", exc_type=ImportError)
    if not hasattr(evaluation, "benchmark"):
        pytest.skip("this copy of robustbench has no benchmark")

    class Few:
        """AutoAttack as the benchmark asks for it."""

        def __init__(self, model: Any, *, log_path: Any = None, device: Any = None, **options: Any) -> None:
            assert options == {"norm": "Linf", "eps": 0.15, "version": "standard"}
            self._attack = real.auto_attack(model, seed=0, **options)

        def run_standard_evaluation(self, images: Any, labels: Any, bs: int, state_path: Any = None) -> Any:
            return real.run(self._attack, images, labels, bs)

    monkeypatch.setattr(evaluation, "AutoAttack", Few)
    monkeypatch.setattr(evaluation, "load_clean_dataset", lambda *arguments: data())
    clean, robust = evaluation.benchmark(model, COUNT, "cifar10", "Linf", eps=0.15, batch_size=COUNT)
    images, labels = data()
    assert clean == pytest.approx(utils.clean_accuracy(model, images, labels))
    assert 0.0 <= robust < clean
