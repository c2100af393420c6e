"""Everything that a verdict rests on, as plain data: what is stored beside the variant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from edgepure.report.environment import environment

from .candidate import Candidate
from .kernels import BATCHES
from .request import Attempt
from .run import Run
from .speed import Speed


def evidence(
    run: Run,
    candidate: Candidate,
    attempts: Sequence[Attempt],
    speeds: Sequence[Speed],
    reasons: Sequence[str],
) -> dict[str, Any]:
    """Everything that the verdict rests on, as plain data."""
    request = run.request
    speed: Any = [s.to_dict() for s in speeds]
    if not speeds:
        speed = f"not measured: the variant is for {request.target}, and this was run on {request.provider}"
    return {
        "precision": request.precision,
        "target": request.target,
        "accepted": not reasons,
        "reasons": list(reasons),
        "kept": list(candidate.keep),
        "asked_to_keep": sorted(run.keep),
        "graphs": dict(candidate.reports),
        "measured_on": "the variant itself"
        if candidate.native
        else "a twin of the variant that computes in fp32 and rounds as the variant does",
        "speed": speed,
        "kernel": run.kernel
        and {
            "convolutions": run.kernel.name,
            "matrix_product_times_faster": dict(zip(map(str, BATCHES), run.kernel.ratios, strict=True)),
        },
        "limits": asdict(request.limits),
        "attempts": [
            {"kept": list(a.kept), "error": a.error, "gates": [g.to_dict() for g in a.gates]} for a in attempts
        ],
        "sensitivity": dict(sorted(run.sensitivity.items(), key=lambda item: -item[1])),
        "calibration": {
            "images": len(run.calibration),
            "calls": len(run.samples),
            "different_rows": run.samples.rows,
            "graph": run.graph,
        },
        "data": {
            name: {"images": len(part), "labelled": part.labels is not None, "sha256": part.sha256}
            for name, part in run.parts.items()
        },
        "redraws": request.redraws,
        "seed": request.seed,
        "threads": request.threads,
        "environment": environment(request.provider),
    }
