"""PyTorch's exporter reads its two thousand translations anew for every graph, a third of a second each time. The tests
export some two hundred graphs: here they are read once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from typing import Any

import pytest


@pytest.fixture(scope="session", autouse=True)
def translations_are_read_once() -> Iterator[None]:
    """Every export gets a registry of its own, as it may add to it, with the same entries in it."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    with suppress(ImportError):  # operators of others are read if they are there: those that tests import later too
        import torchvision  # noqa: F401
    read = cache(ONNXRegistry.from_torchlib)

    def of_its_own(**opset: Any) -> ONNXRegistry:
        first = read(**opset)
        mine = ONNXRegistry()
        mine._opset_version = first._opset_version
        mine.functions = {target: list(found) for target, found in first.functions.items()}
        return mine

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(of_its_own))
        yield
