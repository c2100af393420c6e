"""A bundle of tiny networks, exported once for all tests (and for all workers of pytest-xdist)."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest
import tiny_models
from translations_once import translations_are_read_once  # noqa: F401 - for every test here

#: Two plans with all features, small enough for a test.
PRESETS = {
    "uniform": {"method": {"method": "uniform", "t_star": 60, "steps": 3, "variance": "learned"}},
    "heterogeneous": {
        "method": {"method": "heterogeneous", "t_l": 80, "t_s": 40, "stage1_steps": 2, "stage2_steps": 2},
        "mask": {"area": 0.25},
    },
    "paper_mask": {
        "method": {"method": "heterogeneous", "t_l": 80, "t_s": 40, "variant": "official", "stage1_steps": 2},
        "mask": {"rule": "softmax", "threshold": 0.02},
    },
    "sde": {"method": {"method": "uniform", "t_star": 4, "sampler": "sde"}},
    "adaptive": {
        "method": {"method": "uniform", "t_star": 60, "steps": 3, "sampler": "ddim"},
        "ssni": {"reweighting": "sigmoid", "mu": 20.0, "tau": 10.0, "probe": {"probes": 3, "label": "index"}},
    },
    "long": {"method": {"method": "uniform", "t_star": 60, "steps": 60, "sampler": "ddim"}},
}


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All five graphs: a tapped classifier and a UNet with a learned variance."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    target, lock = shared / "tiny_bundle", shared / "tiny_bundle.lock"
    deadline = time.monotonic() + 300
    while not (target / "bundle.json").exists():
        try:
            lock.touch(exist_ok=False)
        except FileExistsError:  # another worker makes it
            assert time.monotonic() < deadline, "the worker that exports the tiny bundle did not finish"
            time.sleep(0.2)
            continue
        try:
            _export(target)
        finally:
            lock.unlink()
    return target


@pytest.fixture
def own_bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy of `tiny_bundle` that a test may change."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "own"))


def _export(target: Path) -> None:
    from edgepure_export.bundle.writer import export_bundle

    export_bundle(
        tiny_models.TinyClassifier(),
        tiny_models.TinyUNet(learned=True),
        target,
        image_size=tiny_models.SIZE,
        blocks=tiny_models.BLOCKS,
        presets=PRESETS,
        sample_images=tiny_models.images(4),
        selftest_calls=30,
        threads=1,
    )
