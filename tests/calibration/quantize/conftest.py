"""The digits bundle and its images, as the tests of quantization use them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from edgepure.bundle.bundle import Bundle
from edgepure.demo import demo_bundle, demo_images
from edgepure.images.dataset import LabelledImages
from edgepure.purify.purifier import Purifier
from edgepure_calibration.quantize.ranges import measure_ranges
from edgepure_calibration.quantize.recording import Samples, record
from edgepure_export.graphs.qdq import scheme_of
from edgepure_export.graphs.qdq_rules import Tap
from edgepure_export.graphs.quantized_numbers import Range


def labelled(images: np.ndarray, labels: np.ndarray | None) -> LabelledImages:
    return LabelledImages(images, labels, tuple(str(i) for i in range(len(images))))


@pytest.fixture(scope="session")
def clean() -> LabelledImages:
    digits = demo_images()
    return labelled(digits.clean, digits.labels)


@pytest.fixture(scope="session")
def attacked() -> LabelledImages:
    digits = demo_images()
    return labelled(digits.adversarial, digits.labels)


@pytest.fixture(scope="session")
def digits() -> Bundle:
    return Bundle.open(demo_bundle(), verify=False)


@pytest.fixture(scope="session")
def fp32(digits: Bundle) -> Iterator[Purifier]:
    with Purifier(digits, threads=1) as purifier:
        yield purifier


@pytest.fixture
def own_digits(tmp_path: Path) -> Path:
    """A copy of the digits bundle that a test may change."""
    return Path(shutil.copytree(demo_bundle(), tmp_path / "digits"))


@dataclass(frozen=True)
class Measured:
    """Recorded calls of the step graph, and the ranges of every scheme."""

    samples: Samples
    ranges: dict[tuple[str, str], dict[Tap, Range]]


@pytest.fixture(scope="session")
def measured(
    digits: Bundle, fp32: Purifier, clean: LabelledImages, tmp_path_factory: pytest.TempPathFactory
) -> Measured:
    samples = record(fp32, [fp32.preset("uniform-ssni")], clean.images[:8], 24, seed=3)
    work = tmp_path_factory.mktemp("ranges")
    return Measured(
        samples,
        {
            key: measure_ranges(digits.graph_path("step"), scheme_of(*key), samples, work, 1)
            for key in (("int8", "cpu"), ("int8", "tensorrt"), ("fp8", "tensorrt"))
        },
    )
