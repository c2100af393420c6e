"""A machine with a made-up GPU, and the digits bundle with engines for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("cuda.bindings", reason="needs cuda-bindings")

from fake_cuda import Machine
from gpu_stand_in import copy_of_digits, plug_in, unplug

from edgepure.engines.tensorrt.build import build_engines


@dataclass
class Gpu:
    """The machine, and the TensorRT module that is plugged in."""

    machine: Machine
    tensorrt: Any


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gpu]:
    """A GPU that does nothing before somebody waits for it, with TensorRT 11."""
    machine = Machine()
    yield Gpu(machine, plug_in(monkeypatch, machine))
    unplug()


@pytest.fixture(scope="session")
def built_digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits bundle with engines for the made-up GPU (TensorRT 11, batches 1, 2, 4). Read it, do not change it."""
    folder = copy_of_digits(tmp_path_factory.mktemp("built"))
    with pytest.MonkeyPatch.context() as patch:
        plug_in(patch, Machine())
        build_engines(folder, batches=(1, 2, 4))
    unplug()
    return folder
