"""Variants of a bundle for measurements, without the gate of `edgepure quantize`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import edgepure
from edgepure.bundle.bundle import Bundle
from edgepure_calibration.quantize.draft import build
from edgepure_calibration.quantize.quantize import write_variant

_EVIDENCE = {"made_for": "a check of the engines; decisions were not compared"}


def add_half(bundle: Path, precision: Any, work: Path) -> None:
    """An fp16 or bf16 variant, unless it is there."""
    opened = Bundle.open(bundle, verify=False)
    if precision not in opened.manifest.variants:
        # "cpu": the conversion is the same for every target, and only elsewhere a second, emulated one is made
        write_variant(opened, build(opened, precision, "cpu", work / f"{bundle.name}-{precision}"), _EVIDENCE)


def add_int8(bundle: Path, work: Path) -> None:
    """An int8 variant for a GPU of the digits bundle, calibrated on a few of its images, unless it is there."""
    from edgepure_calibration.quantize.ranges import measure_ranges
    from edgepure_calibration.quantize.recording import record
    from edgepure_export.graphs.qdq import scheme_of

    opened = Bundle.open(bundle, verify=False)
    if "int8" in opened.manifest.variants:
        return
    with np.load(edgepure.demo_bundle().parent / "digits_images.npz") as data:
        images = data["clean"][:8]
    with edgepure.load(bundle) as purifier:
        samples = record(purifier, [purifier.preset()], images, 64, 1)
    folder = work / f"{bundle.name}-int8"
    folder.mkdir(parents=True, exist_ok=True)
    scheme = scheme_of("int8", "tensorrt")
    ranges = measure_ranges(opened.graph_path("step"), scheme, samples, folder)
    write_variant(opened, build(opened, "int8", "tensorrt", folder / "graphs", ranges), _EVIDENCE)
