"""Run an engine beside its reference, and make the comparisons of levels 1 to 3."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ..intervals import clopper_pearson
from ..rows.plan import Plan
from .checks import Check, array_check, failed_check, mask_check
from .differences import Difference, difference, mask_difference, mask_flips
from .drift import Drift
from .executors import EngineExecutor, Executor, Float32, PresetRun, Trajectory
from .tolerances import (
    DECISION_CONFIDENCE,
    LOGITS_OVER_IMAGE,
    MASK_PIXELS,
    PLANS,
    Tolerance,
    graph_tolerance,
    image_tolerance,
    row_tolerance,
)

#: Inputs of one call of a graph, and the outputs that are expected.
Case = tuple[Mapping[str, Float32], Mapping[str, Float32]]


def graph_checks(name: str, precision: str, cases: Iterable[Case], executor: Executor) -> list[Check]:
    """One check for every output of a graph, over all cases."""
    found: dict[str, list[Float32]] = {}
    expected: dict[str, list[Float32]] = {}
    faults: dict[str, str] = {}
    for inputs, outputs in cases:
        given = executor.graph(name, inputs)
        for key, wanted in outputs.items():
            fault = _fault(given.get(key), wanted)
            if fault:
                faults[key] = fault
            else:
                found.setdefault(key, []).append(given[key])
            expected.setdefault(key, []).append(wanted)
    tolerance, subject = graph_tolerance(name, precision), f"graph {name}"
    checks = []
    for key, wanted_parts in expected.items():
        if key in faults:
            checks.append(failed_check(subject, key, faults[key]))
        elif (name, key) == ("mask", "mask"):
            checks.append(_graph_mask(subject, precision, found[key], wanted_parts, expected["attention"], tolerance))
        else:
            checks.append(array_check(subject, key, _difference_of(found[key], wanted_parts), tolerance))
    return checks


def compare_rows(
    preset: str, precision: str, plans: Sequence[Plan], reference: Trajectory, deployed: Trajectory
) -> Drift:
    """The states of two trajectories along the same plans, row by row."""
    return Drift(
        preset,
        len(reference.states),
        reference.rows,
        tuple(float(plans[0].rows[row].t) for row in reference.rows),
        tuple(difference(deployed.states[:, i], reference.states[:, i]) for i in range(len(reference.rows))),
        tuple(row_tolerance(precision, row) for row in reference.rows),
    )


def image_checks(
    preset: str,
    precision: str,
    images: Float32,
    seed: int,
    reference: PresetRun,
    deployed: PresetRun,
    executor: EngineExecutor,
) -> list[Check]:
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
        more.append(Check(subject, "plans", proven, others / len(images), PLANS[precision]))
    if differing:
        again = executor.trajectory(images, reference.plans, reference.mask, seed, ())
        deployed = replace(deployed, purified=again.purified, logits=executor.purifier.logits(again.purified))
    tolerance = image_tolerance(precision, max((len(plan.rows) for plan in reference.plans), default=0))
    in_model_range = difference(2.0 * deployed.purified - 1.0, 2.0 * reference.purified - 1.0)
    found = difference(deployed.purified, reference.purified)
    found = replace(found, relative_l2=in_model_range.relative_l2, cosine=in_model_range.cosine)
    logits = difference(deployed.logits, reference.logits)
    given = f" (reference's {' and '.join(differing)})" if differing else ""
    return [
        array_check(subject, f"purified{given}", found, tolerance),
        array_check(subject, f"logits{given}", logits, tolerance.times(LOGITS_OVER_IMAGE)),
        *more,
    ]


def _graph_mask(
    subject: str,
    precision: str,
    found: Sequence[Float32],
    expected: Sequence[Float32],
    attention: Sequence[Float32],
    tolerance: Tolerance,
) -> Check:
    away = sum(
        mask_flips(mine, theirs, map_, tolerance.max_abs)
        for mine, theirs, map_ in zip(found, expected, attention, strict=True)
    )
    problem = f"{away} pixels differ although their attention is not at the cut" if away else ""
    whole = mask_difference(np.concatenate(found), np.concatenate(expected))
    return mask_check(subject, whole, MASK_PIXELS[precision], problem)


def _difference_of(found: Sequence[Float32], expected: Sequence[Float32]) -> Difference:
    return difference(np.concatenate([a.ravel() for a in found]), np.concatenate([a.ravel() for a in expected]))


def _fault(found: Float32 | None, expected: Float32) -> str:
    if found is None:
        return "the engine does not give this output"
    if found.shape != expected.shape:
        return f"the engine gives the shape {list(found.shape)}, expected {list(expected.shape)}"
    return ""
