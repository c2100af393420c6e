"""Puts the chosen presets into the bundle, with the numbers that they were chosen by."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgepure import Bundle, Preset, Purifier
from edgepure.bundle.edit import edit_bundle
from edgepure.images.dataset import LabelledImages
from edgepure.report.numerals import number

from ..bundle_presets import put_presets
from .points import Point
from .result import Tuning, point_of

if TYPE_CHECKING:
    from .whitebox import TwinLoader

EVIDENCE_FILE = "tuning/evidence.json"
#: Among its facts: the text of `measured_by`.
MEASURED_BY = "the measurement of the finalists"
#: A recorded purification is kept if the deployed graphs repeat its pixels this closely; `edgepure verify` allows more.
AGREEMENT = 1e-4


def write_presets(
    bundle: Path, tuning: Tuning, twin: TwinLoader | None, purifier: Purifier, data: LabelledImages
) -> tuple[str, ...]:
    """Write the chosen presets and `EVIDENCE_FILE` into the bundle, all or nothing.

    Recorded purifications of presets that are replaced leave the self-test. With the twin, those of the new ones are
    recorded, by PyTorch as at export; where the deployed graphs do not repeat them (a pixel that ties at the edge of
    the mask), nothing is recorded.

    Returns:
        The new presets without recorded vectors.

    Raises:
        BundleError: the bundle was changed meanwhile.
        EdgepureError: no space or no permission; the bundle is as it was.
    """
    presets = {name: with_evidence(name, point, tuning) for name, point in tuning.chosen.items()}
    recorded = {} if twin is None else _record(twin, presets, purifier, data.images[:2])
    with edit_bundle(bundle) as edit:
        put_presets(edit, presets, recorded)
        text = json.dumps(tuning.to_dict(), indent=2, sort_keys=True, allow_nan=False) + "\n"
        edit.write(EVIDENCE_FILE, text.encode())
    return tuple(name for name in presets if f"pipeline/{name}/image" not in recorded)


def earlier_points(bundle: Bundle, how: str) -> dict[str, Point]:
    """What an earlier tuning measured in the same way, by `Candidate.key`; nothing if there is no such evidence.

    ``how``: `edgepure_calibration.tune.depends.measured_by`.
    """
    if EVIDENCE_FILE not in bundle.manifest.files:
        return {}
    try:
        found = json.loads((bundle.path / EVIDENCE_FILE).read_text(encoding="utf-8"))
        if found["facts"][MEASURED_BY] != how:
            return {}
        points = [point_of(data) for data in (*found["finalists"], *found["references"].values())]
    except (KeyError, TypeError, ValueError, AttributeError):  # of another version
        return {}
    return {point.candidate.key: point for point in points}


def with_evidence(name: str, point: Point, tuning: Tuning) -> Preset:
    """The preset with a description that says what it was measured to do."""
    eps = tuning.settings.eps
    attack = "transferred attack only"
    if point.whitebox is not None:
        curve = tuning.converged[name]
        ends = "converged" if curve.settled else "more may find more"
        attack = f"white-box, Linf eps {eps:.3g}, {curve.steps[-1]} steps, {ends}"
    latency = "" if point.latency_ms is None else f", {number(point.latency_ms)} ms"
    precision = "" if point.candidate.precision == "fp32" else f" in {point.candidate.precision}"
    text = (
        f"tuned ({name}): {100 * point.clean.fraction:.1f} % clean, {100 * point.robust:.1f} % robust ({attack}), "
        f"UNet calls {point.calls}{latency}{precision}; see {EVIDENCE_FILE}"
    )
    return point.candidate.preset.model_copy(update={"description": text, "precision": point.candidate.precision})


def _record(
    twin: TwinLoader, presets: Mapping[str, Preset], purifier: Purifier, images: NDArray[np.float32]
) -> dict[str, NDArray[Any]]:
    import torch

    from edgepure_export.bundle.recordings import record_pipelines

    arrays = record_pipelines(twin("fp32"), presets, torch.from_numpy(images))
    kept: dict[str, NDArray[Any]] = {}
    for name, preset in presets.items():
        prefix = f"pipeline/{name}/"
        expected = arrays[prefix + "purified"]
        alone = preset.model_copy(update={"precision": None})  # recorded in fp32, whatever it was tuned in
        results = purifier.run(images, alone, votes=1, noise=int(arrays[prefix + "seed"]))
        found = np.stack([result.image for result in results])
        if float(np.abs(found - expected).max()) <= AGREEMENT:
            kept |= {key: array for key, array in arrays.items() if key.startswith(prefix)}
    return kept
