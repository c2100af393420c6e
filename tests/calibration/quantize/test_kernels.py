"""The choice of the integer kernel: what is chosen, and that it changes no result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgepure.bundle.bundle import Bundle
from edgepure.purify.purifier import Purifier
from edgepure_calibration.quantize import kernels
from edgepure_calibration.quantize.draft import DraftPurifier, build
from edgepure_calibration.quantize.kernels import KERNELS, fastest_kernel
from edgepure_calibration.quantize.speed import Speed


@pytest.mark.parametrize(
    ("ratios", "name"),
    [((1.3, 1.0), "matrix product"), ((0.9, 1.3), "matrix product"), ((1.04, 1.04), "direct"), ((0.5, 1.2), "direct")],
)
def test_the_matrix_product_has_to_be_clearly_faster_over_both_batches(
    digits: Bundle,
    fp32: Purifier,
    measured: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ratios: tuple[float, float],
    name: str,
) -> None:
    compared = []

    def compare(direct: DraftPurifier, product: DraftPurifier, *args: Any, **more: Any) -> Any:
        feeds = {key: array[:4] for key, array in measured.samples.feeds.items()}
        compared.append([purifier.engine("step").run(feeds)["x_next"] for purifier in (direct, product)])
        return tuple(Speed(batch, 1.0, 1.0 / r, r) for batch, r in zip((1, 8), ratios, strict=True))

    monkeypatch.setattr(kernels, "compare_speed", compare)
    ranges = measured.ranges["int8", "cpu"]
    choice = fastest_kernel(digits, "step", fp32.plan("uniform"), ranges, tmp_path, threads=1)
    assert (choice.name, choice.ratios) == (name, ratios)
    assert choice.scheme is KERNELS[choice.name]
    np.testing.assert_array_equal(*compared[0])
    built = {
        key: build(digits, "int8", "cpu", tmp_path / "again", ranges, graphs=("step",), scheme=scheme)
        .files["step"]
        .read_bytes()
        for key, scheme in KERNELS.items()
    }
    assert built["direct"] != built["matrix product"], "two kernels were compared"
