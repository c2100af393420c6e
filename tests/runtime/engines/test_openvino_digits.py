"""Whole purifications on OpenVINO, beside those on ONNX Runtime."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import edgepure
from edgepure.measure import bench
from edgepure.parity.verify import verify

pytestmark = pytest.mark.needs("openvino")

UNIFORM = {"method": {"method": "uniform", "t_star": 60, "steps": 3}}
HETEROGENEOUS = {
    "method": {"method": "heterogeneous", "t_l": 120, "t_s": 60, "stage1_steps": 2, "stage2_steps": 2, "U": 3},
    "mask": {"area": 0.25},
}
#: Every image gets a plan of its own, so they leave their slots at different times and others move.
SSNI = {**UNIFORM, "ssni": {"reweighting": "linear", "xi_min": 0.0, "xi_max": 1000.0, "probe": {"levels": [10.0]}}}
PRESETS = pytest.mark.parametrize("preset", [UNIFORM, HETEROGENEOUS, SSNI], ids=["uniform", "heterogeneous", "ssni"])


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.load(edgepure.demo_bundle().parent / "digits_images.npz")["clean"][:11]


@pytest.fixture(scope="module")
def purifiers() -> Iterator[tuple[edgepure.Purifier, edgepure.Purifier]]:
    """OpenVINO, whose full batch of 8 goes in two parts, and ONNX Runtime."""
    digits = edgepure.demo_bundle()
    with edgepure.load(digits, "openvino", threads=2) as here, edgepure.load(digits, threads=1) as there:
        yield here, there


def assert_same(found: edgepure.Results, wanted: edgepure.Results) -> None:
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one.image, other.image, atol=2e-5)
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-4)
        assert (one.label, one.unet_calls, one.levels) == (other.label, other.unet_calls, other.levels)


@PRESETS
@pytest.mark.parametrize("count", [1, 5, 8, 11])
def test_a_purification_is_that_of_onnxruntime(
    purifiers: tuple[edgepure.Purifier, edgepure.Purifier], images: np.ndarray, preset: dict[str, object], count: int
) -> None:
    """Of one image, of fewer than there are slots, of as many, of more."""
    here, there = purifiers
    assert_same(here.run(images[:count], preset, noise=5), there.run(images[:count], preset, noise=5))


@PRESETS
def test_a_result_does_not_depend_on_its_batch(
    purifiers: tuple[edgepure.Purifier, edgepure.Purifier], images: np.ndarray, preset: dict[str, object]
) -> None:
    together = purifiers[0].run(images, preset, noise=5)
    for slots in (1, 3):
        with edgepure.load(edgepure.demo_bundle(), "openvino", threads=1, slots=slots) as other:
            assert_same(other.run(images, preset, noise=5), together)


def test_votes(purifiers: tuple[edgepure.Purifier, edgepure.Purifier], images: np.ndarray) -> None:
    here, there = (purifier.classify(images[:3], HETEROGENEOUS, votes=5, noise=1) for purifier in purifiers)
    assert_same(here, there)


def test_the_bundle_is_verified() -> None:
    found = verify(edgepure.demo_bundle(), "openvino", threads=1)
    assert found, found
    assert found.provider == "openvino"


def test_it_is_measured(purifiers: tuple[edgepure.Purifier, edgepure.Purifier]) -> None:
    found = bench(purifiers[0], UNIFORM, batches=(1, 8), repeats=1)
    assert (found.provider, [speed.batch for speed in found.speeds]) == ("openvino", [1, 8])


def test_closed(images: np.ndarray) -> None:
    """As with any engine, it is opened anew."""
    purifier = edgepure.load(edgepure.demo_bundle(), "openvino", threads=1)
    first = purifier.run(images[:2], UNIFORM, noise=5)
    purifier.close()
    assert_same(purifier.run(images[:2], UNIFORM, noise=5), first)
    purifier.close()
