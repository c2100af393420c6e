"""The robustness of the digits bundle: every preset under every attack, by every decision rule.

    python samples/digits/robustness.py                 # the whole table, into docs/results/robustness-digits.*
    python samples/digits/robustness.py --quick         # a look: few images, weak attacks

Several presets are evaluated side by side, each by a process on one core. Finished batches are kept in --work, so an
interrupted run goes on where it was.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import torch
import typer
from data import load_digits_split
from rich.console import Console

import edgepure
from edgepure.cli import duration
from edgepure.demo import demo_bundle
from edgepure.files import write_text
from edgepure.images import LabelledImages
from edgepure_calibration.evaluate import (
    Ablation,
    Evaluated,
    EvaluateSettings,
    Footnotes,
    attack_table,
    evaluate,
    mask_table,
    policy_table,
    resampling_ablation,
    summary_table,
    write_card,
    write_report,
)
from edgepure_calibration.provider import ProviderSettings
from edgepure_export import load_twin

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results"
#: The presets, the most expensive ones first, so that the processes end together.
PRESETS = (
    "heterogeneous",
    "heterogeneous-ssni",
    "gdmp",
    "repaint",
    "gnsp",
    "heterogeneous-official",
    "uniform-ssni",
    "uniform",
)
#: Those that are also attacked through their mask, with the score norm kept small, by BPDA and through a surrogate.
CLOSELY = ("heterogeneous", "uniform-ssni")
#: The preset that is attacked once more with all the strength that critics ask for, and tried with known noise.
STRONGLY, POLICIES = ("uniform",), ("uniform",)

TABLE = EvaluateSettings(
    attacks=("transfer", "pgd", "apgd", "low-frequency", "square"),
    eps=0.05,
    steps=20,
    eot=5,
    images=64,
    votes=5,
    worst=10,
    selection=10,
    queries=150,
    batch=64,
)
CLOSER = replace(TABLE, attacks=("bpda", "surrogate", "pgd", "pgd-small-norm"), mask_gradient="soft", seeds=(0, 1, 2))
STRONG = replace(TABLE, attacks=("pgd",), steps=100, eot=20)
#: With twice the radius: at half of it the policies can hardly be told apart on so many images.
POLICY = replace(TABLE, attacks=("square",), eps=0.1, steps=40, noise_policy=True)
QUICK = {"images": 16, "steps": 4, "eot": 2, "queries": 10, "selection": 2}
#: Images of the ablation; its clean accuracy needs no attack.
ABLATION_IMAGES = 64

console = Console(highlight=False, soft_wrap=True)


@dataclass(frozen=True)
class Task:
    """One preset with one group of attacks: what a process does at a time."""

    group: str
    preset: str
    settings: EvaluateSettings

    @property
    def title(self) -> str:
        """For the progress."""
        return f"{self.preset}, {self.group}"


def tasks(quick: bool) -> list[Task]:
    """All of them, the longest first."""
    made = [
        *(Task("strong", name, STRONG) for name in STRONGLY),
        *(Task("closer", name, CLOSER) for name in CLOSELY),
        *(Task("noise", name, POLICY) for name in POLICIES),
        *(Task("table", name, TABLE) for name in PRESETS),
    ]
    return [replace(t, settings=replace(t.settings, **QUICK)) for t in made] if quick else made


def test_images() -> LabelledImages:
    """The 360 images that nothing was trained or tuned on."""
    test = load_digits_split().test
    return LabelledImages(test.images, test.labels, tuple(str(i) for i in range(len(test))))


def work_on(task: Task, bundle: Path, work: Path) -> Evaluated:
    """Evaluate one task, in a process of its own. The networks are small, so activations are kept."""
    torch.set_num_threads(1)
    return evaluate(
        bundle,
        test_images(),
        [task.preset],
        task.settings,
        provider=ProviderSettings(threads=1),
        checkpointing=False,
        work=work,
    )


def run_all(todo: Sequence[Task], bundle: Path, work: Path, cores: int) -> dict[str, list[tuple[Task, Evaluated]]]:
    """The evaluations by group, in the order of ``todo``."""
    found: dict[Task, Evaluated] = {}
    started = perf_counter()
    with ProcessPoolExecutor(cores, mp_context=get_context("spawn")) as pool:
        futures: dict[Future[Evaluated], Task] = {pool.submit(work_on, t, bundle, work): t for t in todo}
        for future in as_completed(futures):
            task = futures[future]
            found[task] = future.result()
            spent = duration(perf_counter() - started)
            console.print(f"  {len(found)}/{len(todo)} {task.title}: {spent} in all")
    groups: dict[str, list[tuple[Task, Evaluated]]] = {}
    for task in todo:
        groups.setdefault(task.group, []).append((task, found[task]))
    return groups


def merged(found: Sequence[tuple[Task, Evaluated]]) -> Evaluated:
    """Evaluateds of different presets on the same images and settings as one."""
    first = found[0][1]
    return replace(first, presets=tuple(preset for _, one in found for preset in one.presets))


def everything(groups: dict[str, Evaluated]) -> Evaluated:
    """All groups as one evaluation: every preset once, with all attacks on it and the experiment on noise."""
    table = groups["table"]
    others = [preset for name in ("strong", "closer") for preset in groups[name].presets]
    presets = []
    for preset in table.presets:
        more = [attack for other in others if other.name == preset.name for attack in other.attacks]
        known = {attack.protocol.key for attack in preset.attacks}
        added = tuple(attack for attack in more if attack.protocol.key not in known)
        presets.append(replace(preset, attacks=(*preset.attacks, *added)))
    settings = replace(table.settings, mask_gradient=groups["closer"].settings.mask_gradient)
    return replace(table, presets=tuple(presets), settings=settings, experiments=groups["noise"].experiments)


def ablation(bundle: Path, quick: bool) -> Ablation:
    """What resampling costs, measured with nothing else running in this process."""
    twin = load_twin(bundle, checkpointing=False)
    with edgepure.load(bundle, threads=1, slots=32) as purifier:
        data = test_images().take(8 if quick else ABLATION_IMAGES)
        return resampling_ablation(purifier, twin, "heterogeneous", data, repetitions=20, rounds=1 if quick else 5)


def markdown(groups: dict[str, Evaluated], resampling: Ablation, seconds: float, cores: int, quick: bool) -> str:
    """docs/results/robustness-digits.md."""
    table = groups["table"]
    facts, notes = table.facts, Footnotes()
    parts = [
        "# Robustness of the digits bundle",
        "",
        *(["**A quick run: too few images and too weak attacks for a measurement.**", ""] if quick else []),
        f"Measured on {facts['date']} by `python samples/digits/robustness.py{' --quick' if quick else ''}` in "
        f"{duration(seconds)} ({facts['device']}, {cores} processes; edgepure {facts['edgepure']}, PyTorch "
        f"{facts['torch']}, ONNX Runtime {facts['onnxruntime']}).",
        "",
        f"{len(table.labels)} of the 360 held-back test images, drawn with every class in proportion. Attacks go "
        f"through "
        "the differentiable twin; every accuracy is of answers of the deployed graphs, with noise that no attacker has "
        "seen. In round brackets: 95 % Clopper-Pearson intervals; in square ones: the protocol, at the end.",
        "",
    ]
    for group, heading in (
        ("table", "Every preset"),
        ("strong", "As strong as critics ask for: 100 steps, EOT 20"),
        ("closer", "A closer look: mask, score norm, BPDA, surrogate"),
        ("noise", "Where the noise comes from"),
    ):
        found = groups[group]
        parts += [f"## {heading}", ""]
        if group == "table":
            summary = summary_table(found, notes)
            parts += [f"{summary.title}. {summary.note}", "", summary.markdown(), ""]
        for made in (mask_table(found, notes), policy_table(found, notes)):
            if made is not None:
                above = [] if made.title == heading else [f"### {made.title}", ""]
                parts += [*above, made.note, "", made.markdown(), ""]
        if group != "noise":
            for preset in found.presets:
                made = attack_table(preset, notes)
                parts += [f"### {made.title}", "", made.note, "", made.markdown(), ""]
    parts += _resubmission(table, groups["closer"])
    parts += _agreement(list(groups.values()))
    parts += _ablation(resampling)
    parts += ["## What was not tested", "", *(f"- {line}" for line in everything(groups).not_tested()), ""]
    parts += ["## Protocols", "", *(f"- {line}" for line in notes.lines()), ""]
    return "\n".join(parts)


def _resubmission(*found: Evaluated) -> list[str]:
    """Success of an attacker who sends the same image again, under PGD."""
    lines = [
        "## Sending an image again",
        "",
        "Share of the images read wrong at least once in so many single purifications, under `pgd` (its "
        "protocol: as "
        "in the tables above).",
        "",
    ]
    queries = range(1, 1 + max(len(a.resubmission) for one in found for p in one.presets for a in p.attacks))
    lines += ["| preset | " + " | ".join(f"{q}" for q in queries) + " |", "|---" * (len(queries) + 1) + "|"]
    for preset in found[0].presets:
        curve = next((a.resubmission for a in preset.attacks if a.protocol.attack == "pgd"), ())
        lines.append(f"| {preset.name} | " + " | ".join(f"{100 * v:.1f} %" for v in curve) + " |")
    return [*lines, ""]


def _agreement(found: Sequence[Evaluated]) -> list[str]:
    every = [a.agreement for one in found for p in one.presets for a in p.attacks if a.agreement is not None]
    flips, images = sum(a.flips for a in every), sum(a.images for a in every)
    masks = sum(a.masks or 0 for a in every)
    largest = max(a.difference for a in every)
    return [
        "## Twin and engine",
        "",
        f"All attacked images, purified with the same noise by the PyTorch twin and by the deployed engine: {flips} of "
        f"{images} answers differ, {masks} masks differ in some pixel, and pixels of the others by at most "
        f"{largest:.1e}.",
        "",
    ]


def _ablation(found: Ablation) -> list[str]:
    lines = [
        "## What resampling costs",
        "",
        f"The grid of `{found.preset}`, on the deployed engine, one thread; `multi` repeats every step of the first "
        f"stage {found.repetitions} times. Gradient memory: what autograd keeps for one image, nothing recomputed.",
        "",
        "| resampling | UNet calls | extra calls | ms a purification | gradient memory | clean, single purification |",
        "|---|---|---|---|---|---|",
    ]
    for v in found.variants:
        lines.append(
            f"| {v.name} | {v.unet_calls:g} | {v.extra:g} | {v.ms:.2f} | {v.gradient_bytes / 1e6:.1f} MB | "
            f"{v.right} of {v.images} |"
        )
    for name in ("single (paper)", "single (fused)"):
        saved = found.saved(name)
        lines += [
            "",
            f"`{name}` against `multi`: {100 * saved['unet_calls']:.0f} % of all UNet calls saved "
            f"({100 * saved['extra_unet_calls']:.0f} % of the extra ones), {100 * saved['time']:.0f} % of the "
            f"time, {100 * saved['gradient_memory']:.0f} % of the gradient memory.",
        ]
    return [*lines, ""]


def main(
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
    work: Annotated[Path, typer.Option(help="Folder of the checkpoints.")] = Path("out") / "robustness",
    bundle: Annotated[Path | None, typer.Option(help="A bundle of this sample. Default: the packaged one.")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Few images, weak attacks: a look, not a measurement.")
    ] = False,
    cores: Annotated[int | None, typer.Option(min=1, help="Processes. Default: one per core.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write a page with curves and images (.html).")] = None,
    card: Annotated[bool, typer.Option("--card", help="Put the robustness card into --bundle.")] = False,
) -> None:
    """Attack every preset of the digits bundle and write the tables."""
    count = cores or len(os.sched_getaffinity(0))
    place, started = bundle or demo_bundle(), perf_counter()
    todo = tasks(quick)
    console.print(
        f"{len(todo)} evaluations, {count} at a time: {'a minute or two' if quick else 'about 20 minutes'} on two cores"
    )
    by_group = run_all(todo, place, work, count)
    groups = {name: merged(found) for name, found in by_group.items()}
    console.print("what resampling costs")
    resampling = ablation(place, quick)
    seconds = perf_counter() - started
    text = markdown(groups, resampling, seconds, count, quick)
    data: dict[str, Any] = {
        "quick": quick,
        "seconds": round(seconds, 1),
        "processes": count,
        "groups": {name: found.to_dict() for name, found in groups.items()},
        "resampling": resampling.to_dict(),
    }
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "robustness-digits.json", json.dumps(data, indent=1, sort_keys=True, allow_nan=False) + "\n")
    write_text(out / "robustness-digits.md", text)
    console.print(f"written: {out / 'robustness-digits.md'}, {out / 'robustness-digits.json'}; {duration(seconds)}")
    if report is not None:
        write_report(everything(groups), report)
    if card:
        write_card(place, everything(groups))


if __name__ == "__main__":
    typer.run(main)
