"""Make a variant of a bundle in lower precision, and write it into the bundle if it passes the gate."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgepure.bundle.bundle import Bundle
from edgepure.bundle.edit import edit_bundle
from edgepure.types import Progress
from edgepure_export.graphs.half_rules import HALF_TYPES
from edgepure_export.graphs.precision import load_graph

from ..provider import ProviderSettings
from ..work import open_work, remove_work_folder
from .draft import Draft
from .evidence import evidence as make_evidence
from .judge import Data
from .settings import Outcome, QuantizeSettings
from .stages import Stages


def quantize(
    path: Path,
    settings: QuantizeSettings,
    clean: Data,
    attacked: Data | None = None,
    *,
    provider: ProviderSettings | None = None,
    work: Path | None = None,
    on_progress: Progress | None = None,
) -> Outcome:
    """Make a variant and put it through the gate; see `edgepure_calibration.quantize.gate`.

    Args:
        path: the bundle. It changes only if the variant passes.
        settings: what to make.
        clean, attacked: images; with labels their accuracy is compared, too: a class each, or for a task what is true
            of them (`edgepure_calibration.truth.load_data`). Some are used to calibrate, and only the others to judge.
        provider: on what fp32 and the variant are compared; its precision does not count.
        work: folder for what has been measured; an interrupted run goes on from it. None: a hidden one beside the
            bundle, removed at the end.
        on_progress: called with (share of the work that is done, what is going on).

    Returns:
        The verdict, with everything that was measured: what is stored as ``variants/<precision>/evidence.json``.

    Raises:
        ConfigError: unknown preset, layer or target, or too few images to judge by.
        ImageError: the images are too few or all the same.
        ExportError: a graph cannot be converted.
        BundleError, ProviderError: as `edgepure.load`.
        EdgepureError: another run is at work in the folder.
    """
    bundle = Bundle.open(path)
    if bundle.manifest.task is None:
        bundle.manifest.require_classifier("the gate of a variant, which is in decisions,")
    runs_on = replace(provider or ProviderSettings(slots=8), precision="fp32")
    folder = work or bundle.path.with_name(f".{bundle.path.name}.quantize-{settings.precision}-{settings.target}")
    with runs_on.open(bundle) as fp32:
        stages = Stages(bundle, settings, runs_on, fp32, clean, attacked, on_progress)
        with open_work(folder, {**runs_on.key(bundle.manifest), **stages.depends()}) as store:
            stages.measure(store)
            draft, attempts, speeds, reasons = stages.search(store)
            evidence = make_evidence(stages, draft, attempts, speeds, reasons)
            if not reasons:
                write_variant(bundle, draft, evidence)
    if work is None:
        remove_work_folder(folder)
    if on_progress is not None:
        on_progress(1.0, "done")
    return Outcome(not reasons, tuple(reasons), evidence)


def write_variant(bundle: Bundle, draft: Draft, evidence: Mapping[str, Any]) -> None:
    """Put a draft and its evidence into the bundle; a former variant of that precision is replaced."""
    precision = draft.precision
    folder = f"variants/{precision}"
    with edit_bundle(bundle.path) as edit:
        for name in [name for name in edit.manifest.files if name.startswith(f"{folder}/")]:
            edit.remove(name)
        entries = {}
        for graph, file in draft.files.items():
            edit.add(f"{folder}/{file.name}", file)
            opset = load_graph(file).graph.opset_imports[""]
            entries[graph] = edit.manifest.graphs[graph].model_copy(
                update={
                    "file": f"{folder}/{file.name}",
                    "precision": draft.precision,
                    "target": draft.target if precision not in HALF_TYPES else None,
                    "opset": opset,
                }
            )
        weights = next(iter(draft.files.values())).with_name("weights.bin")
        if weights.stat().st_size:
            edit.add(f"{folder}/weights.bin", weights)
        edit.write(f"{folder}/evidence.json", (json.dumps(evidence, indent=2, allow_nan=False) + "\n").encode())
        variants = {**edit.manifest.variants, draft.precision: entries}
        edit.manifest = edit.manifest.model_copy(update={"variants": variants})
