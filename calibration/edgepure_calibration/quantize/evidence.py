"""Everything that a verdict rests on, as plain data: what is stored beside the variant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from edgepure.report.environment import environment

from .draft import Draft
from .kernels import BATCHES
from .settings import Attempt
from .sizes import graph_bytes
from .speed import Speed
from .stages import Stages


def evidence(
    run: Stages,
    draft: Draft,
    attempts: Sequence[Attempt],
    speeds: Sequence[Speed],
    reasons: Sequence[str],
) -> dict[str, Any]:
    """Everything that the verdict rests on, as plain data."""
    settings, provider = run.settings, run.provider
    speed: Any = [s.to_dict() for s in speeds]
    if not speeds:
        speed = f"not measured: the variant is for {settings.target}, and this was run on {provider.provider}"
    return {
        "precision": settings.precision,
        "target": settings.target,
        "accepted": not reasons,
        "reasons": list(reasons),
        "kept": list(draft.keep),
        "asked_to_keep": sorted(run.keep),
        "graphs": dict(draft.reports),
        "measured_on": "the variant itself"
        if draft.native
        else "a twin of the variant that computes in fp32 and rounds as the variant does",
        "bytes": {
            "fp32": graph_bytes(run.bundle.graph_path(graph) for graph in draft.files),
            settings.precision: graph_bytes(draft.files.values()),
        },
        "speed": speed,
        "kernel": run.kernel
        and {
            "convolutions": run.kernel.name,
            "matrix_product_times_faster": dict(zip(map(str, BATCHES), run.kernel.ratios, strict=True)),
        },
        "limits": asdict(settings.limits),
        "certificates": run.carried,
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
        "redraws": settings.redraws,
        "seed": settings.seed,
        "threads": provider.threads,
        "environment": environment(provider.provider),
    }
