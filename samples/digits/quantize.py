"""Which precision keeps the decisions? Every variant that can be judged here, on the held-back digits; prints tables.

    python samples/digits/quantize.py --out out/precision

takes about ten minutes on one core. Variants for TensorRT are judged by their twins, those for ONNX Runtime's CPU and
for OpenVINO by themselves. Speed is not part of the verdict here: these networks are too small to show it.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from build_bundle import TRANSFER
from data import load_digits_split
from models import load_classifier

from edgepure.bundle import Target, VariantName
from edgepure.cli import Progress
from edgepure.demo import demo_bundle
from edgepure.files import write_text
from edgepure.images import LabelledImages
from edgepure_calibration.provider import ProviderSettings
from edgepure_calibration.quantize import Limits, QuantizeSettings, quantize

#: What is made, by (precision, engine).
VARIANTS: tuple[tuple[VariantName, Target], ...] = (
    ("int8", "cpu"),
    ("bf16", "openvino"),
    ("int8", "openvino"),
    ("fp16", "tensorrt"),
    ("bf16", "tensorrt"),
    ("int8", "tensorrt"),
    ("fp8", "tensorrt"),
)
PRESETS = ("heterogeneous", "uniform", "heterogeneous-ssni", "uniform-ssni")


def percent(share: float) -> str:
    """A share as the tables print it."""
    return f"{100 * share:.2f} %"


def cells(evidence: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """Flips of the last attempt by (preset, images)."""
    gates = evidence["attempts"][-1]["gates"]
    return {(gate["preset"], part): flips for gate in gates for part, flips in gate["flips"].items()}


def decisions_table(evidence: dict[str, Any]) -> str:
    """Every cell of one variant, as Markdown."""
    lines = [
        "| preset | images | new noise flips | variant flips | bound | accuracy fp32 | variant |",
        "|---|---|---|---|---|---|---|",
    ]
    for (preset, part), f in cells(evidence).items():
        flipped, redrawn = f["flipped"] / f["decisions"], f["redrawn"] / f["decisions"]
        lines.append(
            f"| {preset} | {part} | {percent(redrawn)} | {percent(flipped)} | {percent(f['high'])} | "
            f"{percent(f['accuracy_fp32'])} | {percent(f['accuracy'])} |"
        )
    return "\n".join(lines)


def worst_row(evidence: dict[str, Any]) -> str:
    """One variant in one line: the worst of its cells, its drift at the end of all presets."""
    worst = cells(evidence).values()
    flipped = max(f["flipped"] / f["decisions"] for f in worst)
    lost = max(f["accuracy_fp32"] - f["accuracy"] for f in worst)
    gates = evidence["attempts"][-1]["gates"]
    drift = max(check["value"] for gate in gates for check in gate["checks"] if check["name"] == "drift")
    return (
        f"| {evidence['precision']} for {evidence['target']} | {len(evidence['kept'])} | {percent(flipped)} | "
        f"{100 * lost:.2f} points | {percent(drift)} | {'accepted' if evidence['accepted'] else 'refused'} |"
    )


def main(
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("out/precision"),
    quick: Annotated[bool, typer.Option("--quick", help="A look, not a measurement.")] = False,
) -> None:
    """Make and judge each variant of a copy of the digits bundle."""
    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    bundle = out / "bundle"
    shutil.rmtree(bundle, ignore_errors=True)
    shutil.copytree(demo_bundle(), bundle)
    test = load_digits_split().test
    names = tuple(str(i) for i in range(len(test)))
    clean = LabelledImages(test.images, test.labels, names)
    adversarial = TRANSFER(load_classifier(), torch.from_numpy(test.images), torch.from_numpy(test.labels)).numpy()
    attacked = LabelledImages(adversarial, test.labels, names)
    if quick:
        clean, attacked = clean.take(100, 0), attacked.take(100, 0)
    found = []
    for precision, target in VARIANTS[:3] if quick else VARIANTS:
        share = 0.05 if quick else 0.02
        limits = Limits(flips=share, accuracy=share, speed=0.0)
        settings = QuantizeSettings(
            precision,
            target,
            presets=PRESETS[:1] if quick else PRESETS,
            limits=limits,
        )
        provider = ProviderSettings("openvino" if target == "openvino" else "cpu", threads=1, slots=8)
        with Progress(f"{precision} for {target}") as bar:
            outcome = quantize(bundle, settings, clean, attacked, provider=provider, on_progress=bar.update)
        found.append(dict(outcome.evidence))
        write_text(out / f"{precision}-{target}.json", json.dumps(found[-1], indent=1) + "\n")
        print(f"\n{precision} for {target}: {found[-1]['measured_on']}\n\n{decisions_table(found[-1])}", flush=True)
    print("\n| variant | layers kept | decisions flipped, at most | accuracy lost, at most | drift | verdict |")
    print("|---|---|---|---|---|---|\n" + "\n".join(worst_row(e) for e in found))


if __name__ == "__main__":
    typer.run(main)
