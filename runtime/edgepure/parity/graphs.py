"""Level 1: one call of every graph, output by output."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ..types import Float32
from .checks import OutputCheck, array_check, failed_check, mask_check
from .differences import Difference, difference, mask_difference, mask_flips
from .executors import Executor
from .tolerances import MASK_PIXELS, Tolerance, graph_tolerance

#: Inputs of one call of a graph, and the outputs that are expected.
Case = tuple[Mapping[str, Float32], Mapping[str, Float32]]


def graph_checks(name: str, precision: str, cases: Iterable[Case], executor: Executor) -> list[OutputCheck]:
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


def _graph_mask(
    subject: str,
    precision: str,
    found: Sequence[Float32],
    expected: Sequence[Float32],
    attention: Sequence[Float32],
    tolerance: Tolerance,
) -> OutputCheck:
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
