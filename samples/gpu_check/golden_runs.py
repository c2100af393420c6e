"""The golden trajectories of tests/goldens on any engine: their networks are exported, their noise is replayed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from golden_cases import SOURCES
from golden_data import files, torch_epsilon
from golden_trace import Case, TracingStepper, check, run

from .context import Context
from .engines import EngineName, opened
from .networks import make_bundle

#: Makes a case anew: a case remembers which of its noises were used.
Maker = Callable[[], Case]


def cases(few: bool = False) -> list[tuple[str, Maker]]:
    """Every golden trajectory by name; ``few``: one of each section."""
    found: list[tuple[str, Maker]] = []
    for folder, pattern, make in SOURCES:
        for path in files(folder, pattern):
            found.append((f"{folder.partition('_')[0]} {path.stem}", partial(make, path)))
            if few:
                break
    return found[:3] if few else found


def run_case(make: Maker, name: EngineName, context: Context) -> Mapping[str, Any]:
    """Replay one trajectory; an error above its tolerance is raised."""
    case = make()
    learned = any(plan.learned_variance for plan in case.plans)
    shape = case.refs.shape[1:]
    bundle = make_bundle(
        torch_epsilon(case.net), shape, _place(case, learned, context), context.device, learned=learned
    )
    with opened(bundle, name, (1, 2)) as engine:
        stepper = engine.stepper("step_learned" if learned else "step")
        errors = check(case, run(case, TracingStepper(stepper)))
    return {"ok": True, "largest_error": max(errors.values()), "rows": len(case.plans[0].rows)}


def _place(case: Case, learned: bool, context: Context) -> Path:
    """One bundle for each network, whichever trajectories use it."""
    key = hashlib.sha256(case.net.read_bytes() + bytes([learned])).hexdigest()[:12]
    return context.work / "goldens" / key
