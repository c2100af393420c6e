"""What a device gets: the verbs of `edgepure` on the CIFAR-10 bundle, one after another, and what they found.

    python -m samples.cifar10.device --bundle out/cifar10/bundle --out docs/results

Verifies, calibrates, quantizes, tunes under six budgets, and counts how often the monitor flags ordinary images. Every
verb runs as a user would run it, on a copy of the bundle, and its JSON document is kept in `--work`: what is there is
not done again. Images are test images that the trial does not use.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

import edgepure
from edgepure.files import write_npz, write_text
from edgepure.purify import reference_of
from edgepure_calibration.attacks import PGD
from samples.cifar10.data import to_unit
from samples.cifar10.fetch import get
from samples.cifar10.models import load_classifier
from samples.cifar10.presets import DEFAULT
from samples.cifar10.trial.__main__ import order

#: Test images in the trial's order: it takes the first thousand.
FIRST, COUNT = 2000, 1200
RATES = (0.01, 0.02, 0.05, 0.1)
#: Presets that tuning measures beside its own.
BESIDE = (DEFAULT, "uniform-6", "uniform-3")


@dataclass(frozen=True)
class Step:
    """One command. A gate that was not passed (exit code 6) and a budget that nothing meets are results too."""

    name: str
    arguments: list[str] = field(default_factory=list)


def steps(bundle: Path, clean: Path, attacked: Path, trials: int, whitebox: bool) -> Iterator[Step]:
    """All commands, in order."""
    yield Step("verify", ["verify", str(bundle), "--provider", "cpu,openvino"])
    yield Step("calibrate", ["calibrate", str(bundle), "--data", str(clean), "--attacked", str(attacked)])
    gates = ["--data", str(clean), "--attacked", str(attacked), "--preset", DEFAULT, "--redraws", "3"]
    gates += ["--max-flips", "0.03", "--max-loss", "0.03"]  # what so few images can show
    for precision, provider in (("int8", "cpu"), ("bf16", "openvino"), ("int8", "openvino")):
        name = f"quantize-{precision}-{provider}"
        yield Step(name, ["quantize", str(bundle), "--precision", precision, "--provider", provider, *gates])
    for unit, budgets in (("calls", (5, 10, 50)), ("ms", (5, 10, 30))):
        for budget in budgets:
            options = ["--trials", str(trials), "--images", "100", "--dry-run", f"--budget-{unit}", str(budget)]
            options += [text for name in BESIDE for text in ("--reference", name)]
            options += ["--whitebox"] if whitebox else ["--attacked", str(attacked), "--no-whitebox"]
            yield Step(f"tune-{unit}-{budget}", ["tune", str(bundle), "--data", str(clean), *options])
    yield Step("bench", ["bench", str(bundle)])


def run(step: Step, work: Path) -> dict[str, Any]:
    """The JSON document of one command; kept, so that it is made once."""
    kept = work / f"{step.name}.json"
    if not kept.is_file():
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "edgepure", *step.arguments, "--json"],
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        result = json.loads(done.stdout.replace(f"{Path.cwd()}/", "") or "{}")  # paths of this machine tell nobody
        missed = result.get("error", {}).get("code", "").startswith("E-tune-budget")
        if done.returncode not in (0, 6) and not missed:
            raise SystemExit(f"{step.name} ended with {done.returncode}")
        seconds = time.perf_counter() - start
        document = {"exit_code": done.returncode, "seconds": round(seconds, 1), "result": result}
        write_text(kept, json.dumps(document) + "\n")
        print(f"{step.name}: exit code {done.returncode}, {seconds:.0f} s", flush=True)
    found: dict[str, Any] = json.loads(kept.read_text())
    return found


def brief(verification: dict[str, Any]) -> dict[str, Any]:
    """Verdicts alone, by engine: every single comparison would be a long list."""
    names = ("provider", "precision", "ok")
    return {"ok": verification["ok"], "engines": [{n: v[n] for n in names} for v in verification["verifications"]]}


def false_positives(bundle: Path, images: np.ndarray, attacked: np.ndarray) -> dict[str, Any]:
    """How often the monitor's stated rates flag images that no calibration has seen, and attacked ones."""
    with edgepure.load(bundle) as purifier:
        calibration = purifier.bundle.manifest.calibration
        assert calibration is not None
        reference = reference_of(calibration, calibration.chosen, "fp32")
        assert reference is not None
        found: dict[str, Any] = {"reference": len(reference), "images": len(images), "attacked": len(attacked)}
        for name, some in (("clean_flagged", images), ("attacked_flagged", attacked)):
            values = [reference.p_value(n) for n in purifier.score_norms(some, calibration.chosen, noise=1)]
            found[name] = {f"{rate:g}": float(np.mean(np.array(values) <= rate)) for rate in RATES}
    return found


def main(
    bundle: Annotated[Path, typer.Option(help="A bundle of build_bundle.py; it is copied")] = Path(
        "out/cifar10/bundle"
    ),
    data: Annotated[Path | None, typer.Option(help="Your own copy of CIFAR-10")] = None,
    work: Annotated[Path, typer.Option(help="Folder of the copy and of all documents")] = Path("out/cifar10/device"),
    out: Annotated[Path, typer.Option()] = Path("docs/results"),
    images: Annotated[int, typer.Option(help="Clean images, and half as many attacked ones")] = 600,
    trials: Annotated[int, typer.Option(help="Of each search")] = 16,
    whitebox: Annotated[
        bool, typer.Option(help="Tune against attacks through the defence too: hours without AMX")
    ] = True,
    only: Annotated[str | None, typer.Option(help="Commands whose names start so")] = None,
) -> None:
    """Run what is not done yet and write the documents into one file."""
    work.mkdir(parents=True, exist_ok=True)
    copy = work / "bundle"
    if not copy.exists():
        shutil.copytree(bundle, copy)
    stored = get(data, Path("out/cifar10/data"))
    chosen = order(stored)[FIRST : FIRST + COUNT]
    clean, labels = to_unit(stored.test_images[chosen]), stored.test_labels[chosen]
    files = work / "clean.npz", work / "attacked.npz"
    if not files[1].is_file():
        half = slice(images, images + images // 2)
        x, y = torch.from_numpy(clean[half]), torch.from_numpy(labels[half])
        made = np.asarray(PGD(eps=8 / 255, steps=40, seed=3)(load_classifier(), x, y).numpy(), np.float32)
        write_npz(files[0], {"images": clean[:images], "labels": labels[:images]})
        write_npz(files[1], {"images": made, "labels": labels[half]})
    found = {
        s.name: run(s, work) for s in steps(copy, *files, trials, whitebox) if only is None or s.name.startswith(only)
    }
    if "verify" in found:
        found["verify"]["result"] = brief(found["verify"]["result"])
    if only is None:
        with np.load(files[1], allow_pickle=False) as attacked:
            found["monitor"] = false_positives(copy, clean[images + images // 2 :], attacked["images"])
        write_text(out / "cifar10-device.json", json.dumps(found, separators=(",", ":")) + "\n")
        print(f"written: {out / 'cifar10-device.json'}")


if __name__ == "__main__":
    typer.run(main)
