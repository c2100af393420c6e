"""The whole road: export, self-test, attack, purify and classify, attack through the defence, report.

    python samples/digits/demo.py --out out

takes about three minutes on two CPU cores and writes out/bundle, out/report.html and out/report.json.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Annotated

import numpy as np
import torch
import typer
from build_bundle import TRANSFER, build, reference
from data import Images, Labels, load_digits_split
from demo_report import DemoRun, Settings, make_report
from models import WEIGHTS, load_classifier, load_unet
from rich.console import Console
from workers import Pair, Report, Workers

import edgepure
from edgepure.cli import Progress, duration
from edgepure.demo import MethodRun, ScoredRun, evaluate, evaluate_methods, plain_labels, write
from edgepure_calibration.attacks import PGD, Defence
from edgepure_export import TorchReference

#: The attack through the whole defence; against the plain classifier the same without EOT.
WHITEBOX = PGD(eps=0.05, steps=15, eot=3, step_size=0.0125, seed=2)
PLAIN_WHITEBOX = replace(WHITEBOX, eot=1)
#: Once more with twice the radius, on the first method only.
STRONGER = replace(WHITEBOX, eps=0.1, step_size=0.025)
#: The methods that the white-box attack looks at closely, on this many images; the others get half as many.
MAIN = ("heterogeneous", "heterogeneous-ssni", "uniform", "uniform-ssni")
WHITEBOX_IMAGES, QUICK_WHITEBOX_IMAGES, QUICK_IMAGES = 192, 8, 40
#: Seeds: of the drawn images, of the noise of the evaluation, of the attacker's own noise (he does not know the other).
SUBSET_SEED, NOISE_SEED, ATTACKER_SEED = 20250301, 41, 77

console = Console(highlight=False, soft_wrap=True)


@dataclass
class Clock:
    """Announces the stages of the demonstration and keeps their times."""

    total: int
    timings: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[Progress]:
        """Time a stage; its progress goes to stderr."""
        console.print(f"[bold]{len(self.timings) + 1}/{self.total} {name}[/bold]")
        start = perf_counter()
        with Progress(name) as bar:
            yield bar
        self.timings[name] = perf_counter() - start
        console.print(f"    took {duration(self.timings[name])}")


def drawn(count: int, of: int) -> Labels:
    """Indices of ``count`` images drawn at random, ascending; always the same ones."""
    return np.sort(np.random.RandomState(SUBSET_SEED).permutation(of)[:count]).astype(np.int64)


def attack_classifier(clean: Images, labels: Labels, workers: Workers, bar: Progress) -> dict[str, Images]:
    """Attack the plain classifier: ``attacked`` is then given to every method, ``whitebox`` is compared with theirs."""
    attacks = {"attacked": TRANSFER, "whitebox": PLAIN_WHITEBOX}

    def one(task: str, pair: Pair, report: Report) -> Images:
        attack = attacks[task]
        images, truth = torch.from_numpy(clean), torch.from_numpy(labels)
        adversarial: Images = attack(pair.twin.logits, images, truth, lambda n: report(n / attack.steps)).numpy()
        return adversarial

    return workers.each({task: attack.steps for task, attack in attacks.items()}, one, bar.update)


def purify_all(run: DemoRun, workers: Workers, bar: Progress) -> None:
    """Every method on the clean and on the attacked images."""

    def one(name: str, pair: Pair, report: Report) -> MethodRun:
        found = evaluate_methods(
            pair.purifier,
            [name],
            run.clean,
            run.attacked,
            run.labels,
            seed=NOISE_SEED,
            on_progress=lambda share, _: report(share),
        )
        return found[name]

    costs = {name: float(calls) for name, calls in run.unet_calls.items()}
    run.methods = workers.each(costs, one, bar.update)


def attack_defences(run: DemoRun, workers: Workers, bar: Progress) -> None:
    """Attack every method through its PyTorch twin, and let the exported graphs answer.

    The first method is attacked once more with twice the radius.
    """
    default, stronger = run.names[0], "twice the radius"

    def one(task: str, pair: Pair, report: Report) -> tuple[Images, ScoredRun]:
        name, attack = (default, STRONGER) if task == stronger else (task, WHITEBOX)
        index = run.whitebox_index[name]
        adversarial = attack(
            Defence(pair.twin, run.presets[name], ATTACKER_SEED),
            torch.from_numpy(run.clean[index]),
            torch.from_numpy(run.labels[index]),
            lambda step: report(step / attack.steps),
        ).numpy()
        return adversarial, evaluate(pair.purifier, adversarial, run.labels[index], name, seed=NOISE_SEED + 2)

    costs = {name: float(calls * len(run.whitebox_index[name])) for name, calls in run.unet_calls.items()}
    costs = {stronger: costs[default], **costs}
    console.print(f"    about {duration(seconds_per_cost(run, workers, default) * sum(costs.values()))}")
    found = workers.each(costs, one, bar.update)
    run.stronger = found.pop(stronger)[1].score
    for name, (adversarial, evaluation) in found.items():
        run.adversarial[name], run.whitebox[name] = adversarial, evaluation


def seconds_per_cost(run: DemoRun, workers: Workers, name: str) -> float:
    """Seconds that the white-box attack takes for one image and one UNet call of its method: tried on one gradient."""
    index = run.whitebox_index[name][: WHITEBOX.batch]
    images, labels = torch.from_numpy(run.clean[index]), torch.from_numpy(run.labels[index])

    def one(_: str, pair: Pair, report: Report) -> float:
        defence = Defence(pair.twin, run.presets[name], ATTACKER_SEED)
        WHITEBOX.gradient(defence, images, labels)  # the first call has to find its memory
        start = perf_counter()
        WHITEBOX.gradient(defence, images, labels)
        return perf_counter() - start

    tried = workers.each({str(i): 1.0 for i in range(run.settings.cores)}, one)
    per_step = float(np.mean(list(tried.values()))) / (len(index) * run.unet_calls[name])
    return per_step * WHITEBOX.steps / run.settings.cores


def twin_agreement(run: DemoRun, twin: TorchReference, name: str, count: int = 64) -> str:
    """Does the engine answer the attacked images as PyTorch does, with the same noise?"""
    found = run.methods[name].attacked.results[:count]
    with torch.no_grad():
        images = torch.from_numpy(run.attacked[: len(found)])
        same = twin.run_preset(images, run.presets[name], edgepure.SeededNoise(NOISE_SEED + 1))
    differences = np.abs(np.stack([r.image for r in found]) - same.purified.numpy()).max(axis=(1, 2, 3))
    flipped = sum(r.vote_labels[0] != int(label) for r, label in zip(found, same.logits.argmax(1), strict=True))
    text = f"{name}, {len(found)} attacked images: {flipped} answers differ"
    alike = np.ones(len(found), bool)
    if same.mask is not None:
        masks = np.stack([r.mask for r in found if r.mask is not None])
        alike = (masks == (same.mask[:, 0] > 0.5).numpy()).all(axis=(1, 2))
        text += f", {int((~alike).sum())} of {len(found)} masks differ (pixels that tie with the last one inside)"
    return f"{text}, pixels of the others by at most {differences[alike].max():.1e}"


def main(
    out: Annotated[Path, typer.Option(help="Folder for the bundle and the report.")] = Path("out"),
    quick: Annotated[bool, typer.Option("--quick", help="Fewer images: a look, not a measurement.")] = False,
    cores: Annotated[int | None, typer.Option(min=1, help="CPU cores to use. Default: all.")] = None,
    weights: Annotated[Path, typer.Option(help="Folder with the two safetensors files.")] = WEIGHTS,
) -> None:
    """Export, attack, purify and classify the digits, and write a report."""
    cores = cores or len(os.sched_getaffinity(0))
    torch.set_num_threads(1)  # the cores work on different methods
    console.print(f"The digits, end to end: about {'one minute' if quick else 'three minutes'} on two cores.")
    clock = Clock(total=6)
    test = load_digits_split().test
    chosen = drawn(QUICK_IMAGES if quick else len(test), len(test))
    clean, labels = test.images[chosen], test.labels[chosen]

    with clock.stage("export to ONNX") as bar:
        bundle = build(out / "bundle", weights, on_progress=bar.update)
    with clock.stage("self-test") as bar:
        verification = edgepure.verify(bundle, threads=1, on_progress=bar.update)
        console.print(f"    {verification}")
        if not verification:
            raise edgepure.VerificationError(str(verification))
    with edgepure.load(bundle, threads=1) as purifier, Workers(bundle, weights, cores) as workers:
        for graph, difference in purifier.bundle.manifest.provenance.parity.items():
            console.print(f"    {graph}: largest difference to PyTorch {difference:.1e}")
        with clock.stage("attack the classifier") as bar:
            images = {"clean": clean, **attack_classifier(clean, labels, workers, bar)}
        names = [*MAIN, *sorted(set(purifier.presets) - set(MAIN))]
        presets = {name: purifier.preset(name) for name in names}
        settings = Settings(
            TRANSFER, PLAIN_WHITEBOX, WHITEBOX, NOISE_SEED, ATTACKER_SEED, SUBSET_SEED, len(test), cores, quick
        )
        run = DemoRun(settings, clean, images["attacked"], labels, names, presets, verification)
        run.plain = {key: plain_labels(purifier, array) for key, array in images.items()}
        for name in names:
            count = QUICK_WHITEBOX_IMAGES if quick else WHITEBOX_IMAGES // (1 if name in MAIN else 2)
            run.whitebox_index[name] = drawn(count, len(labels))
            run.unet_calls[name] = purifier.plan(name).unet_calls
        with clock.stage("purify and classify") as bar:
            purify_all(run, workers, bar)
            run.agreement = twin_agreement(run, reference(load_classifier(weights), load_unet(weights)), names[0])
            console.print(f"    PyTorch and ONNX Runtime, {run.agreement}")
        with clock.stage("attack through the defence") as bar:
            attack_defences(run, workers, bar)
        with clock.stage("report"):
            report = make_report(run, purifier, clock.timings)
            paths = write(report, out)
    for method in report.methods:
        assert method.attacked is not None and method.whitebox is not None
        console.print(
            f"  {method.name:24} {method.unet_calls:5.1f} UNet calls   clean {method.clean.fraction:6.1%}   "
            f"attacked {method.attacked.fraction:6.1%}   white-box {method.whitebox.fraction:6.1%}"
        )
    console.print(f"written: {', '.join(str(path) for path in paths)}")


if __name__ == "__main__":
    typer.run(main)
