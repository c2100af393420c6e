"""The papers' tables on the papers' test subset: clean and robust accuracy, published values beside them."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import edgepure
from edgepure import Bundle
from edgepure.cli import Progress, table
from edgepure.files import write_text
from edgepure.images import LabelledImages
from edgepure_calibration.attacks import known_attacks
from edgepure_calibration.evaluate import (
    Evaluated,
    EvaluateSettings,
    attack_table,
    evaluate,
    mask_table,
    resampling_ablation,
    write_report,
)
from edgepure_calibration.provider import ProviderSettings
from edgepure_export import load_twin

from .papers import TABLES, published_for

#: The papers' subset: 512 images, drawn with this seed without replacement (Lee & Kim 2023 and those who follow them).
SUBSET, SEED = 512, 0

#: (folder or file, indices or None for all) -> images [n, C, H, W] float32 in [0, 1], labels [n].
Reader = Callable[[Path, "NDArray[np.int64] | None"], tuple[Any, Any]]


def subset(count: int, size: int = SUBSET, seed: int = SEED) -> NDArray[np.int64]:
    """Indices of the papers' subset of a test set with ``count`` images, in their order."""
    return np.random.RandomState(seed).choice(count, size, replace=False)


def main(name: str, read: Reader, count: int, default: str) -> None:
    """Command line of a recipe's ``evaluate.py``.

    Args:
        name: of the data set, a key of `TABLES`.
        read: see `Reader`.
        count: images of the test set.
        default: where the bundle is by default.
    """
    usual = TABLES[name]
    parser = argparse.ArgumentParser(description=f"{name}: clean and robust accuracy on the papers' test subset.")
    parser.add_argument("--bundle", type=Path, default=Path(default))
    parser.add_argument("--data", type=Path, help="the test set (see README.md)")
    parser.add_argument("--random-images", action="store_true", help="noise instead of the test set: to try the script")
    parser.add_argument("--preset", action="append", help="default: the bundle's own default")
    parser.add_argument(
        "--attack", default=",".join(usual.attacks), help=f"of {', '.join(known_attacks())}; none: clean only"
    )
    parser.add_argument("--images", type=int, default=SUBSET, help="only the first ones of the subset")
    for option in ("steps", "eot", "votes", "worst", "batch", "copies", "queries", "surrogate-calls"):
        parser.add_argument(f"--{option}", type=int, default=getattr(usual, option.replace("-", "_")))
    parser.add_argument("--mask-gradient", default="none", help="none, soft or straight_through")
    parser.add_argument(
        "--seeds", default="0", help="one run of every attack for each of them, for example 121,122,123"
    )
    parser.add_argument("--ablation", action="store_true", help="also compare the ways to resample (first preset)")
    parser.add_argument("--provider", default="cpu")
    parser.add_argument("--device", default="cpu", help="of the gradients: cpu or cuda")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--work", type=Path, help="folder of the checkpoints; the same command goes on there")
    parser.add_argument("--report", type=Path, help="write a page with tables, curves and images (.html)")
    parser.add_argument("--out", type=Path, help="write the numbers there (.json)")
    options = parser.parse_args()
    if options.random_images == (options.data is not None):
        parser.error("give --data FOLDER, or --random-images to try the script without data")
    try:
        settings = replace(
            usual,
            images=options.images,
            steps=options.steps,
            eot=options.eot,
            votes=options.votes,
            worst=options.worst,
            batch=options.batch,
            copies=options.copies,
            queries=options.queries,
            surrogate_calls=options.surrogate_calls,
            mask_gradient=options.mask_gradient,
            seeds=tuple(int(seed) for seed in options.seeds.split(",")),
            subset_seed=SEED,
        )
        manifest = Bundle.open(options.bundle).manifest
        data = _data(options, manifest, read, subset(count)[: options.images])
        report = run(options, settings, data, name)
    except edgepure.EdgepureError as error:
        raise SystemExit(f"error: {error}") from None
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        write_text(options.out, json.dumps({"data": name, "random": options.random_images, **report}, indent=2) + "\n")


def run(options: Any, settings: EvaluateSettings, data: LabelledImages, name: str) -> dict[str, Any]:
    """Evaluate, print and give the numbers. ``options``: as `main` reads them."""
    attacks = () if options.attack == "none" else tuple(a.strip() for a in options.attack.split(","))
    with Progress("opening the bundle") as bar:
        found = evaluate(
            options.bundle,
            data,
            options.preset,
            replace(settings, attacks=attacks),
            provider=ProviderSettings(options.provider, threads=options.threads, slots=options.slots),
            device=options.device,
            work=options.work,
            on_progress=bar.update,
        )
    show(found)
    result = found.to_dict()
    if options.report is not None:
        write_report(found, options.report)
    if options.ablation:
        with edgepure.load(options.bundle, options.provider, threads=options.threads, slots=options.slots) as purifier:
            twin = load_twin(options.bundle)
            made = resampling_ablation(purifier, twin, found.presets[0].name, data, rounds=1)
        result["resampling"] = made.to_dict()
        print(json.dumps(made.to_dict(), indent=2))
    return result


def show(found: Evaluated) -> None:
    """The tables, the published values, the protocols."""
    notes = found.footnotes()
    for preset in found.presets:
        made = attack_table(preset, notes)
        print(f"{made.title}: {made.note}")
        table(made.columns, made.rows)
        beside = published_for(preset.name)
        if beside:
            print("published for this method (another protocol is another number):")
            table(
                ("clean", "robust", "classifier", "protocol", "source"),
                [
                    ("-" if p.clean is None else f"{p.clean} %", f"{p.robust} %", p.classifier, p.protocol, p.source)
                    for p in beside
                ],
            )
    gains = mask_table(found, notes)
    if gains is not None:
        table(gains.columns, gains.rows)
    print("protocols:", *notes.lines(), "not tested:", *found.not_tested(), sep="\n  ")


def _data(options: Any, manifest: Any, read: Reader, chosen: NDArray[np.int64]) -> LabelledImages:
    if options.random_images:
        rng, shape = np.random.default_rng(0), manifest.image.shape
        images = rng.random((len(chosen), *shape), dtype=np.float32)
        labels: Any = np.arange(len(chosen)) % len(manifest.classes)
    else:
        images, labels = read(options.data, chosen)
    return LabelledImages(images, labels, tuple(str(i) for i in chosen))
