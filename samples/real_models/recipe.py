"""The common part of the recipes: export two sources and write down what it took."""

from __future__ import annotations

import argparse
import json
import logging
import platform
import resource
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import edgepure
from edgepure import Bundle, verify
from edgepure.machine import cpu_name, usable_cores
from edgepure_export import ExportedBundle, export_from_sources


@dataclass(frozen=True)
class Recipe:
    """One data set's export.

    Attributes:
        name: of the data set.
        files: what the recipe needs: option -> (source of its file, what to put there).
        untrained: sources of the same architectures with random weights.
        presets: default presets.
        tolerance: largest difference to PyTorch that the export accepts.
    """

    name: str
    files: Mapping[str, tuple[str, str]]
    untrained: Mapping[str, str]
    presets: tuple[str, ...]
    tolerance: float = 1e-4


def main(recipe: Recipe) -> None:
    """Command line of a recipe's ``export.py``."""
    parser = argparse.ArgumentParser(description=f"{recipe.name}: from checkpoint files to a bundle.")
    for option, (source, help_text) in recipe.files.items():
        parser.add_argument(f"--{option}", metavar="FILE", help=f"{help_text} (read as {source})")
    parser.add_argument("--random-weights", action="store_true", help="untrained networks of the true size instead")
    parser.add_argument("--preset", action="append", help=f"default: {', '.join(recipe.presets)}")
    parser.add_argument("--set", action="append", default=[], metavar="ssni.KEY=NUMBER", help="statistics for SSNI")
    parser.add_argument("--classes", type=Path, help="text file with one class name a line")
    parser.add_argument("--out", type=Path, default=Path("out") / f"{recipe.name}-published")
    parser.add_argument("--report", type=Path, help="write times, memory and sizes there (.json; a .md beside it)")
    parser.add_argument("--selftest-calls", type=int, default=10, help="record purifications of at most so many calls")
    parser.add_argument("--note", default="", help="a sentence for the report, for example what else the machine did")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--overwrite", action="store_true")
    options = parser.parse_args()
    if options.threads:
        import torch

        torch.set_num_threads(options.threads)
    logging.basicConfig(format="%(message)s")
    sources = {name: text for name, (text, _) in recipe.files.items()}
    for name in recipe.files:
        given = getattr(options, name.replace("-", "_"))
        if options.random_weights:
            sources[name] = recipe.untrained[name]
        elif given is None:
            parser.error(f"give --{name} FILE, or --random-weights to try the recipe without files (see README.md)")
        else:
            sources[name] = sources[name].replace("FILE", given)
    statistics = {k.removeprefix("ssni."): float(v) for k, _, v in (text.partition("=") for text in options.set)}
    try:
        report = run(
            recipe,
            sources["classifier"],
            sources["diffusion"],
            options.out,
            options.preset or recipe.presets,
            statistics=statistics,
            threads=options.threads,
            overwrite=options.overwrite,
            classes=options.classes.read_text().split("\n")[:-1] if options.classes else None,
            selftest_calls=options.selftest_calls,
        )
    except edgepure.EdgepureError as error:
        raise SystemExit(f"error: {error}") from None
    report["note"] = options.note
    print(markdown(report))
    if options.report is not None:
        options.report.parent.mkdir(parents=True, exist_ok=True)
        options.report.write_text(json.dumps(report, indent=2) + "\n")
        options.report.with_suffix(".md").write_text(markdown(report))


def run(recipe: Recipe, classifier: str, diffusion: str, out: Path, presets: Any, **options: Any) -> dict[str, Any]:
    """Export, verify through the runtime, and report: seconds, peak memory, sizes, differences to PyTorch."""
    started = time.perf_counter()
    stages: dict[str, float] = {}

    def progress(share: float, stage: str) -> None:
        if stage not in stages:
            stages[stage] = time.perf_counter() - started
            print(f"{stages[stage]:7.1f} s  {peak_memory():5.2f} GiB  {stage}", flush=True)

    exported: ExportedBundle = export_from_sources(
        classifier, diffusion, out, preset=presets, tolerance=recipe.tolerance, on_progress=progress, **options
    )
    seconds = time.perf_counter() - started
    memory = peak_memory()
    manifest = Bundle.open(out, verify=False).manifest
    assert exported.classifier is not None
    counts = {
        name: sum(int(p.numel()) for p in source.model.parameters())
        for name, source in (("classifier", exported.classifier), ("diffusion", exported.diffusion))
    }
    del exported  # the runtime loads the bundle by itself
    loading = time.perf_counter()
    with edgepure.load(out, threads=options.get("threads")):
        loading = time.perf_counter() - loading
    verified = verify(out, threads=options.get("threads"))
    return {
        "recipe": recipe.name,
        "date": date.today().isoformat(),
        "machine": {
            "cpu": f"{cpu_name()}, {usable_cores()} cores",
            "threads": options.get("threads"),
            "python": platform.python_version(),
        },
        "classifier": manifest.provenance.classifier,
        "diffusion": manifest.provenance.diffusion,
        "parameters": counts,
        "presets": list(manifest.presets),
        "blocks": list(manifest.attention.blocks) if manifest.attention is not None else [],
        "export_seconds": round(seconds, 1),
        "stages_begin_at_seconds": {k: round(v, 1) for k, v in stages.items()},
        "peak_memory_gib": round(memory, 2),
        "load_seconds": round(loading, 2),
        "files_bytes": {name: entry.bytes for name, entry in sorted(manifest.files.items())},
        "largest_difference_to_pytorch": dict(sorted(manifest.provenance.parity.items())),
        "tolerance": recipe.tolerance,
        "verified": bool(verified),
    }


def markdown(report: Mapping[str, Any]) -> str:
    """The report for people."""
    parity = report["largest_difference_to_pytorch"]
    files = report["files_bytes"]
    total = sum(files.values())
    lines = [
        f"# Export of {report['recipe']}: {report['classifier']} and {report['diffusion']}",
        "",
        f"{report['date']}, {report['machine']['cpu']}, {_threads(report['machine']['threads'])}. "
        f"{report.get('note', '')}".rstrip(),
        "",
        "| what | value |",
        "|---|---|",
        f"| parameters | {report['parameters']['classifier'] / 1e6:.1f} M and "
        f"{report['parameters']['diffusion'] / 1e6:.1f} M |",
        f"| presets | {', '.join(report['presets'])} |",
        f"| export with its parity check and self-test | {report['export_seconds']} s |",
        f"| peak memory of the whole process | {report['peak_memory_gib']} GiB |",
        f"| loading the bundle, hashes checked | {report['load_seconds']} s |",
        f"| bundle | {total / 1e9:.2f} GB in {len(files)} files, weights.bin {files['weights.bin'] / 1e9:.2f} GB |",
        *(f"| largest difference to PyTorch, {name} | {value:.1e} |" for name, value in parity.items()),
        f"| verified through the runtime | {'yes' if report['verified'] else 'NO'} |",
        "",
    ]
    return "\n".join(lines)


def _threads(count: int | None) -> str:
    return "all cores" if count is None else "1 thread" if count == 1 else f"{count} threads"


def peak_memory() -> float:
    """GiB that this process had in memory at most so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
