"""Settings that every test shares. The markers themselves are declared in pyproject.toml."""

from __future__ import annotations

import gc
import os
from importlib.util import find_spec
from pathlib import Path

# One OpenMP thread per pytest-xdist worker: two workers on two cores would otherwise start four threads.
# This must run before NumPy or PyTorch is imported.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import pytest
from hypothesis import HealthCheck, settings

# No deadline: how fast an example runs is a matter for benchmarks/, never for a test.
settings.register_profile("edgepure", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
# EDGEPURE_HYPOTHESIS=explore looks for new counter-examples instead of repeating the same ones.
settings.register_profile("explore", settings.get_profile("edgepure"), derandomize=False, max_examples=1000)
settings.load_profile(os.environ.get("EDGEPURE_HYPOTHESIS", "edgepure"))

# Discrete cards and data-centre cards; the integrated GPU of a Jetson (JetPack 5 and 6).
GPU_DEVICES = (Path("/dev/nvidiactl"), Path("/dev/nvhost-gpu"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip `gpu` where there is no NVIDIA device, `needs` where a module lacks, and `long` unless it is asked for.

    The longest test comes first: at the end the other worker would wait for it.
    """
    items.sort(key=lambda item: item.path.name != "test_types.py")
    device = any(device.exists() for device in GPU_DEVICES)
    for item in items:
        if item.get_closest_marker("gpu") is not None and not device:
            item.add_marker(pytest.mark.skip(reason="needs an NVIDIA device"))
        if item.get_closest_marker("long") is not None and os.environ.get("EDGEPURE_LONG") != "1":
            item.add_marker(pytest.mark.skip(reason="takes a minute or more; make test-long runs it"))
        for module in (name for marker in item.iter_markers("needs") for name in marker.args):
            if find_spec(module) is None:
                item.add_marker(pytest.mark.skip(reason=f"needs {module}"))


def pytest_collection_finish() -> None:
    """What was imported stays to the end: it need not be looked through for garbage again and again. PyTorch's exporter
    makes objects by the million, and is a seventh faster so."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
