"""Run the trial, or go on with it.

    python -m samples.cifar10.trial --bundle out/cifar10/bundle --minutes 30
    python -m samples.cifar10.trial --systems heterogeneous-6,uniform-6 --attacks pgd --images 256
    python -m samples.cifar10.trial.report                       # write what is there

It goes through the test images in batches of 32, in one order for all systems, and does the most important tasks first:
whenever it is stopped, systems can be compared on the images that both have met. Several processes share the work with
`--shard 0/2` and `--shard 1/2`. Everything that is done is kept in `--work`, by the key of the bundle
(`bundle_key`).
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from edgepure_calibration.digest import derived_seed
from samples.cifar10.data import Cifar10, to_unit
from samples.cifar10.fetch import get
from samples.cifar10.models import WEIGHTS

from .attacks import Attack, run
from .bundle_key import bundle_key
from .store import BATCH, Answers, Store
from .systems import System, systems
from .tasks import Task, in_order, tasks

#: The order in which test images are taken, and everything else that is drawn.
ORDER_SEED, SEED = 20260301, 7


def order(data: Cifar10) -> np.ndarray:
    """Test images in a fixed random order, every ten of them of ten different classes."""
    generator = np.random.RandomState(ORDER_SEED)
    by_class = [generator.permutation(np.flatnonzero(data.test_labels == label)) for label in range(10)]
    return np.stack(by_class, 1).reshape(-1)


def do(task: Task, batch: int, system: System, plain: System, data: Cifar10, store: Store) -> None:
    """One task on one batch, if it is not done yet."""
    draws = task.draws if system.random else 1
    index = order(data)[BATCH * batch : min(BATCH * (batch + 1), task.images)]
    kept = store.get(task.system, task.attack.name, batch, draws)
    if kept is not None and len(kept) >= len(index):  # with fewer images asked for, a last batch is a short one
        return
    images, labels = to_unit(data.test_images[index]), data.test_labels[index]
    start = time.perf_counter()
    attacked = attack_images(task.attack, task.system, batch, system, plain, (images, labels), store)
    answers = system.answers(attacked, draws, derived_seed(SEED, task.attack.name, batch, "answers"))
    found = Answers(
        task.system,
        task.attack.name,
        system.calls,
        index,
        labels,
        np.asarray(answers.argmax(2), np.int64),
        answers.max(2),
        time.perf_counter() - start,
    )
    store.put(found, batch, draws)


def attack_images(
    attack: Attack,
    name: str,
    batch: int,
    system: System,
    plain: System,
    clean: tuple[np.ndarray, np.ndarray],
    store: Store,
) -> np.ndarray:
    """Attacked images; those made on the plain classifier are made once and kept for every system."""
    seed = derived_seed(SEED, attack.name, batch)
    if attack.kind not in ("autoattack", "transfer"):
        return run(attack, system, plain, *clean, seed)
    kept = store.images("plain", attack.name, batch)
    if kept is None or len(kept) != len(clean[1]):
        kept = run(attack, plain, plain, *clean, seed)
        store.put_images("plain", attack.name, batch, kept)
    return kept


def main(
    bundle: Annotated[Path, typer.Option(help="A bundle of build_bundle.py")] = Path("out/cifar10/bundle"),
    classifier: Annotated[str, typer.Option(help="Of this bundle: ours, resnet20 or resnet56")] = "ours",
    data: Annotated[Path | None, typer.Option(help="Your own copy of CIFAR-10")] = None,
    weights: Annotated[Path, typer.Option(help="Of the sample's networks")] = WEIGHTS,
    work: Annotated[Path, typer.Option(help="Folder of the raw answers")] = Path("out/cifar10/trial"),
    results: Annotated[
        Path | None, typer.Option(help="Go on from these published answers, if they are of the same bundle and engine")
    ] = None,
    only: Annotated[str | None, typer.Option("--systems", help="Names, separated by commas")] = None,
    kinds: Annotated[str | None, typer.Option("--attacks", help="Kinds or names, separated by commas")] = None,
    images: Annotated[int | None, typer.Option(help="At most so many images a task")] = None,
    draws: Annotated[int | None, typer.Option(help="At most so many answers an image")] = None,
    minutes: Annotated[float | None, typer.Option(help="Begin nothing new after so many")] = None,
    shard: Annotated[str, typer.Option(help="Do every n-th task: i/n")] = "0/1",
    threads: Annotated[int, typer.Option()] = 1,
    provider: Annotated[str, typer.Option(help="What answers: cpu or openvino")] = "cpu",
    precision: Annotated[str, typer.Option(help="In which precision it answers")] = "fp32",
    bf16: Annotated[bool, typer.Option(help="Gradients in bfloat16: three times as fast with AMX")] = False,
) -> None:
    """Attack every system and keep what it answers."""
    os.nice(max(0, 10 - os.nice(0)))
    torch.set_num_threads(threads)
    stored = get(data, Path("out/cifar10/data"))
    known = systems(bundle, stored, classifier, work, weights, bf16, provider, precision)
    store = Store(work / f"{classifier}-{bundle_key(bundle, provider, precision)}")
    if results is not None:
        published = [group for group in json.loads(results.read_text()).values() if group["bundle"] == store.key]
        answers = [Answers.from_dict(one) for group in published for one in group["answers"]]
        print(f"{results}: {store.restore(answers)} batches for the bundle {store.key}", flush=True)
    todo = tasks(list(known))
    if only is not None:
        wanted = only.split(",")
        unknown = sorted(set(wanted) - set(known))
        if unknown:
            raise typer.BadParameter(f"there is no {', '.join(unknown)}; there are {', '.join(known)}")
        todo = [t for t in todo if t.system in wanted]
    if kinds is not None:
        asked = set(kinds.split(","))
        todo = [t for t in todo if asked & {t.attack.kind, t.attack.name}]
    most = images or 10_000
    todo = [replace(t, images=min(t.images, most), draws=min(t.draws, draws or t.draws)) for t in todo]
    mine, of = (int(n) for n in shard.split("/"))
    started = time.monotonic()
    for number, (batch, task) in enumerate(in_order(todo, BATCH)):
        if number % of != mine:
            continue
        before = time.monotonic()
        if minutes is not None and before - started > 60 * minutes:
            print("the time is over", flush=True)
            return
        do(task, batch, known[task.system], known["plain"], stored, store)
        seconds = time.monotonic() - before
        if seconds > 0.5:
            spent = (time.monotonic() - started) / 60
            print(f"{spent:6.1f} min  batch {batch}  {task.system} {task.attack.name}: {seconds:.1f} s", flush=True)
    print("done", flush=True)


if __name__ == "__main__":
    typer.run(main)
