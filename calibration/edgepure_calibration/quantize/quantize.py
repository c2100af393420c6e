"""Make a variant of a bundle in lower precision, and write it into the bundle if it passes the gate."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgepure.bundle.bundle import Bundle
from edgepure.bundle.edit import edit_bundle
from edgepure.files.locks import work_folder
from edgepure.images.dataset import LabelledImages
from edgepure.purify.purifier import Purifier
from edgepure_export.graphs.precision import HALF_TYPES, load_graph

from .candidate import Candidate
from .evidence import evidence as make_evidence
from .request import Outcome, Request
from .run import OnProgress, Run
from .work import Work


def quantize(
    path: Path,
    request: Request,
    clean: LabelledImages,
    attacked: LabelledImages | None = None,
    *,
    work: Path | None = None,
    on_progress: OnProgress | None = None,
) -> Outcome:
    """Make a variant and put it through the gate; see `edgepure_calibration.quantize.gate`.

    Args:
        path: the bundle. It changes only if the variant passes.
        request: what to make.
        clean, attacked: images; with labels their accuracy is compared, too. Some are used to calibrate, and only the
            others to judge.
        work: folder for what has been measured, removed at the end; an interrupted run goes on from it. None: a hidden
            one beside the bundle.
        on_progress: told about stages and their share done.

    Returns:
        The verdict, with everything that was measured: what is stored as ``variants/<precision>/evidence.json``.

    Raises:
        ConfigError: unknown preset, layer or target, or too few images to judge by.
        ImageError: the images are too few or all the same.
        ExportError: a graph cannot be converted.
        BundleError, ProviderError: as `edgepure.load`.
        EdgepureError: another run is at work in the folder.
    """
    report: OnProgress = on_progress or (lambda what, share: None)
    bundle = Bundle.open(path)
    with Purifier(bundle, request.provider, threads=request.threads) as fp32:
        run = Run(bundle, request, fp32, clean, attacked, report)
        folder = work or bundle.path.with_name(f".{bundle.path.name}.quantize-{request.precision}-{request.target}")
        with work_folder(folder):
            store = Work(folder, run.key())
            run.measure(store)
            candidate, attempts, speeds, reasons = run.search(store)
            evidence = make_evidence(run, candidate, attempts, speeds, reasons)
            if not reasons:
                report("writing", 0.9)
                write_variant(bundle, candidate, evidence)
            store.remove()
    return Outcome(not reasons, tuple(reasons), evidence)


def write_variant(bundle: Bundle, candidate: Candidate, evidence: Mapping[str, Any]) -> None:
    """Put a candidate and its evidence into the bundle; a former variant of that precision is replaced."""
    precision = candidate.precision
    folder = f"variants/{precision}"
    with edit_bundle(bundle.path) as edit:
        for name in [name for name in edit.manifest.files if name.startswith(f"{folder}/")]:
            edit.remove(name)
        entries = {}
        for graph, file in candidate.files.items():
            edit.add(f"{folder}/{file.name}", file)
            opset = load_graph(file).graph.opset_imports[""]
            entries[graph] = edit.manifest.graphs[graph].model_copy(
                update={
                    "file": f"{folder}/{file.name}",
                    "precision": candidate.precision,
                    "target": candidate.target if precision not in HALF_TYPES else None,
                    "opset": opset,
                }
            )
        weights = next(iter(candidate.files.values())).with_name("weights.bin")
        if weights.stat().st_size:
            edit.add(f"{folder}/weights.bin", weights)
        edit.write(f"{folder}/evidence.json", (json.dumps(evidence, indent=2, allow_nan=False) + "\n").encode())
        variants = {**edit.manifest.variants, candidate.precision: entries}
        edit.manifest = edit.manifest.model_copy(update={"variants": variants})
