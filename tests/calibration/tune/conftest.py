"""A tiny bundle, images that its classifier reads right, and attacked ones that it reads wrong."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest
from tiny_bundle import images, make_tiny_bundle

from edgepure import Bundle, Preset
from edgepure.bundle.manifest import Manifest
from edgepure.images.dataset import LabelledImages
from edgepure.purify.scores import Score
from edgepure_calibration.tune.candidate import Candidate
from edgepure_calibration.tune.points import Point

optuna.logging.set_verbosity(optuna.logging.ERROR)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("tuning") / "tiny")


@pytest.fixture
def bundle(made: Path, tmp_path: Path) -> Path:
    """A copy that the test may change."""
    return Path(shutil.copytree(made, tmp_path / "tiny"))


@pytest.fixture(scope="session")
def manifest(made: Path) -> Manifest:
    return Bundle.open(made).manifest


@pytest.fixture(scope="session")
def data() -> LabelledImages:
    """Forty images, dark (0) and bright (1) in turn."""
    pixels = images(40, seed=1)
    return LabelledImages(pixels, np.arange(40, dtype=np.int64) % 2, tuple(map(str, range(40))))


@pytest.fixture(scope="session")
def attacked(data: LabelledImages) -> LabelledImages:
    """The same, moved across the brightness at which the classifier changes its mind."""
    assert data.labels is not None
    shift = np.where(data.labels == 0, 0.3, -0.3).astype(np.float32)[:, None, None, None]
    return replace(data, images=np.clip(data.images + shift, 0.0, 1.0))


MakePoint = Callable[..., Point]


@pytest.fixture
def point() -> MakePoint:
    """Makes points from a cost and accuracies in per cent of 100 images. Every call gives another candidate."""
    count = iter(range(1, 1000))

    def make(calls: int, clean: int, attacked: int, whitebox: int | None = None, dropped: str = "") -> Point:
        number = next(count)
        preset = Preset.parse({"method": {"method": "uniform", "t_star": 1 + number, "steps": 1}})
        scores = [None if right is None else Score(100, right) for right in (clean, attacked, whitebox)]
        return Point(Candidate(preset), calls, None, scores[0] or Score(100, 0), scores[1], scores[2], number, dropped)

    return make
