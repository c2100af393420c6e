"""What every engine does with no images, and after it was closed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from codes import raises_code
from fake_cuda import Machine
from gpu_stand_in import plug_in, plug_in_onnxruntime, unplug

import edgepure
from edgepure.bundle.bundle import Bundle
from edgepure.engines import open_engine


@contextmanager
def closed_is_an_error() -> Iterator[None]:
    with raises_code("E-engine-closed"):
        yield


def check(folder: Path, provider: str) -> None:
    bundle = Bundle.open(folder)
    options: dict[str, Any] = {"threads": 1} if provider in ("cpu", "openvino") else {}
    for graph in ("classifier", "step"):
        engine = open_engine(bundle, graph, provider, **options)
        feeds = {name: np.zeros((0, *spec.shape[1:]), np.float32) for name, spec in engine.inputs.items()}
        shapes = {name: (0, *spec.shape[1:]) for name, spec in engine.outputs.items()}
        assert {name: array.shape for name, array in engine.run(feeds).items()} == shapes
        if graph == "classifier":
            one = {"image": np.zeros((1, 1, 16, 16), np.float32)}
            assert engine.run(one)["logits"].shape == (1, 10)
            engine.close()
            engine.close()
            with closed_is_an_error():
                engine.run(one)
            with closed_is_an_error():
                engine.bound(1)
            with closed_is_an_error():
                engine.stepper()
    stepper = engine.stepper(2)
    image = np.zeros((1, 16, 16), np.float32)
    stepper.admit(0, image, image, None)
    stepper.step(1)
    stepper.close()
    stepper.close()
    with closed_is_an_error():
        stepper.step(1)
    engine.close()


@pytest.mark.parametrize("provider", ["cpu", pytest.param("openvino", marks=pytest.mark.needs("openvino"))])
def test_on_the_cpu(provider: str) -> None:
    check(edgepure.demo_bundle(), provider)


def test_on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()
    plug_in(monkeypatch, machine)
    plug_in_onnxruntime(monkeypatch, machine)
    check(edgepure.demo_bundle(), "cuda")
    assert machine.leaks() == {}
    unplug()


def test_on_tensorrt(built_digits: Path, gpu: Any) -> None:
    check(built_digits, "tensorrt")
    assert gpu.machine.leaks() == {}
