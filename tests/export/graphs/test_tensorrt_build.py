"""All five graphs of an exported bundle on TensorRT: built by the real one, run on the stand-in."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("cuda.bindings", reason="needs cuda-bindings")

from fake_cuda import Machine
from gpu_stand_in import plug_in, real_rtx, unplug

import edgepure
from edgepure.engines.tensorrt.build import build_engines
from edgepure.engines.tensorrt.engine import TensorRTStepper

GRAPHS = ["classifier", "mask", "step", "step_learned", "unet"]


@pytest.fixture
def folder(tiny_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle, tmp_path / "tiny"))


def test_the_real_builder_builds_every_graph(folder: Path) -> None:
    real_rtx()
    built = build_engines(folder, batches=(1, 2, 8), provider="tensorrt-rtx")
    assert sorted(engine.graph for engine in built) == GRAPHS
    assert all(engine.bytes > 10_000 for engine in built)


@pytest.mark.parametrize("preset", ["uniform", "heterogeneous", "sde", "adaptive"])
def test_every_kind_of_plan_gives_what_the_cpu_gives(
    folder: Path, monkeypatch: pytest.MonkeyPatch, preset: str
) -> None:
    """A learned variance (two noises a row), a mask, noise after the last row, and plans of different length."""
    images = np.random.default_rng(1).random((4, 3, 8, 8), dtype=np.float32)
    with edgepure.load(folder, threads=1) as purifier:
        expected = purifier.run(images, preset, votes=2, noise=9)
    machine = Machine()
    plug_in(monkeypatch, machine)
    build_engines(folder, batches=(1, 4))
    with edgepure.load(folder, "tensorrt", slots=3) as purifier:
        found = purifier.run(images, preset, votes=2, noise=9)
        for stepper in purifier.graphs._steppers.values():
            assert isinstance(stepper, TensorRTStepper) and stepper.noise_on_device
    unplug()
    assert machine.leaks() == {}
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.image, other.image, atol=5e-5)
        assert one.unet_calls == other.unet_calls and one.levels == other.levels
