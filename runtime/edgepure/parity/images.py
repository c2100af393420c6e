"""Level 3: the purified image, its logits and its mask; and the images that differ most, for a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..intervals import clopper_pearson
from ..types import Float32
from .checks import OutputCheck, array_check, failed_check, mask_check
from .differences import difference, mask_difference
from .executors import EngineExecutor, PresetRun
from .tolerances import DECISION_CONFIDENCE, LOGITS_OVER_IMAGE, MASK_PIXELS, PLANS, image_tolerance

#: Images of one preset that are shown, and presets.
MOST_IMAGES, MOST_PRESETS = 4, 4


@dataclass(frozen=True)
class Differing:
    """One image that a deployment purifies otherwise than its reference.

    Attributes:
        preset, data, index: which one.
        image, reference, deployed: ``[C, H, W]`` float32 in [0, 1]: the input, and the two purified images.
        reference_mask, deployed_mask: ``[H, W]`` bool; None without a mask.
        reference_label, deployed_label: names of the classes; empty without a classifier.
    """

    preset: str
    data: str
    index: int
    image: Float32
    reference: Float32
    deployed: Float32
    reference_mask: NDArray[np.bool_] | None
    deployed_mask: NDArray[np.bool_] | None
    reference_label: str
    deployed_label: str


def most_differing(
    preset: str, data: str, images: Float32, reference: PresetRun, deployed: PresetRun, classes: Sequence[str]
) -> list[Differing]:
    """The images that differ most come first; at most `MOST_IMAGES`."""
    worst = np.abs(reference.purified - deployed.purified).max(axis=(1, 2, 3))
    worst = np.nan_to_num(worst, nan=np.inf)
    names = [[""] * len(images)] * 2
    if classes:
        worst = np.where(reference.labels != deployed.labels, np.inf, worst)
        names = [[classes[int(label)] for label in run.labels] for run in (reference, deployed)]
    return [
        Differing(
            preset, data, i, images[i], reference.purified[i], deployed.purified[i],
            None if reference.mask is None else reference.mask[i, 0] > 0.5,
            None if deployed.mask is None else deployed.mask[i, 0] > 0.5,
            names[0][i], names[1][i],
        )
        for i in map(int, np.argsort(-worst, kind="stable")[:MOST_IMAGES])
    ]  # fmt: skip


def image_checks(
    preset: str,
    precision: str,
    images: Float32,
    seed: int,
    reference: PresetRun,
    deployed: PresetRun,
    executor: EngineExecutor,
) -> list[OutputCheck]:
    """Purified image, its logits, the mask, and the plans that SSNI chose.

    A mask pixel at the cut may flip, and a score norm at the border of two noise levels may choose the other one; then
    the image is another one by right. So if masks or plans differ, the images that are compared are made anew with
    those of the reference.
    """
    subject, differing, more = f"pipeline {preset}", [], []
    if reference.mask is not None:
        if deployed.mask is None or deployed.mask.shape != reference.mask.shape:
            return [failed_check(subject, "mask", "the engine gives no mask of the recorded shape")]
        more.append(mask_check(subject, mask_difference(deployed.mask, reference.mask), MASK_PIXELS[precision]))
        differing += ["mask"] if more[0].pixels else []
    others = sum(mine != theirs for mine, theirs in zip(deployed.plans, reference.plans, strict=True))
    if others:
        differing.append("plan")
        proven = clopper_pearson(others, len(images), DECISION_CONFIDENCE)[0]
        more.append(OutputCheck(subject, "plans", proven, others / len(images), PLANS[precision]))
    if differing:
        again = executor.trajectory(images, reference.plans, reference.mask, seed, ())
        deployed = replace(deployed, purified=again.purified, logits=executor.logits(again.purified))
    tolerance = image_tolerance(precision, max((len(plan.rows) for plan in reference.plans), default=0))
    in_model_range = difference(2.0 * deployed.purified - 1.0, 2.0 * reference.purified - 1.0)
    found = difference(deployed.purified, reference.purified)
    found = replace(found, relative_l2=in_model_range.relative_l2, cosine=in_model_range.cosine)
    given = f" (reference's {' and '.join(differing)})" if differing else ""
    checks = [array_check(subject, f"purified{given}", found, tolerance)]
    if reference.logits.size:
        logits = difference(deployed.logits, reference.logits)
        checks.append(array_check(subject, f"logits{given}", logits, tolerance.times(LOGITS_OVER_IMAGE)))
    return [*checks, *more]
