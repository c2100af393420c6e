"""Clean accuracy and cost on the papers' test subset, through the runtime alone."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import edgepure

#: The papers' subset: 512 images, drawn with this seed without replacement (Lee & Kim 2023 and those who follow them).
SUBSET, SEED = 512, 0

MISSING = (
    "missing for the papers' tables: the attacks (PGD with EOT through the differentiable reference, AutoAttack, "
    "BPDA), robust accuracy with votes, and confidence intervals; clean accuracy alone says nothing about robustness"
)


def subset(count: int, size: int = SUBSET, seed: int = SEED) -> NDArray[np.int64]:
    """Indices of the papers' subset of a test set with ``count`` images, in their order."""
    return np.random.RandomState(seed).choice(count, size, replace=False)


#: (folder or file, indices or None for all) -> images [n, C, H, W] float32 in [0, 1], labels [n].
Reader = Callable[[Path, "NDArray[np.int64] | None"], tuple[Any, Any]]


def main(name: str, read: Reader, count: int, default: str) -> None:
    """Command line of a recipe's ``evaluate.py``.

    Args:
        name: of the data set.
        read: see `Reader`.
        count: images of the test set.
        default: where the bundle is by default.
    """
    parser = argparse.ArgumentParser(description=f"{name}: clean accuracy and UNet calls on the papers' test subset.")
    parser.add_argument("--bundle", type=Path, default=Path(default))
    parser.add_argument("--data", type=Path, help="the test set (see README.md)")
    parser.add_argument("--random-images", action="store_true", help="noise instead of the test set: to try the script")
    parser.add_argument("--preset", action="append", help="default: the bundle's own default")
    parser.add_argument("--images", type=int, default=SUBSET, help="only the first ones of the subset")
    parser.add_argument("--votes", type=int, help="default: as the preset says")
    parser.add_argument("--provider", default="cpu")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--seed", type=int, help="repeatable noise, to compare runs")
    parser.add_argument("--out", type=Path, help="write the numbers there (.json)")
    options = parser.parse_args()
    if options.random_images == (options.data is not None):
        parser.error("give --data FOLDER, or --random-images to try the script without data")
    try:
        with edgepure.load(options.bundle, options.provider, threads=options.threads, slots=options.slots) as purifier:
            chosen = subset(count)[: options.images]
            if options.random_images:
                images, labels = _random(purifier.image_shape, len(chosen), len(purifier.bundle.manifest.classes))
            else:
                images, labels = read(options.data, chosen)
            rows = [
                evaluate(purifier, preset, images, labels, options.votes, options.seed)
                for preset in options.preset or [purifier.bundle.manifest.default_preset]
            ]
    except edgepure.EdgepureError as error:
        raise SystemExit(f"error: {error}") from None
    print(f"{'preset':34} {'images':>6} {'plain':>7} {'purified':>8} {'calls':>7} {'s/image':>8}")
    for row in rows:
        print(
            f"{row['preset']:34} {row['images']:6} {100 * row['plain_accuracy']:6.2f}% "
            f"{100 * row['purified_accuracy']:7.2f}% {row['calls_per_image']:7.1f} {row['seconds_per_image']:8.3f}"
        )
    print(MISSING)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        report = {"data": name, "random": options.random_images, "rows": rows}
        options.out.write_text(json.dumps(report, indent=2) + "\n")


def evaluate(
    purifier: edgepure.Purifier, preset: str, images: Any, labels: Any, votes: int | None, seed: int | None
) -> dict[str, Any]:
    """One preset on all images: accuracy of the plain classifier and of the purified one, calls and time."""
    plain = np.concatenate([purifier.logits(batch) for batch in np.array_split(images, max(1, len(images) // 64))])
    started = time.perf_counter()
    results = purifier.classify(images, preset, votes=votes, noise=seed)
    seconds = time.perf_counter() - started
    return {
        "preset": preset,
        "images": len(images),
        "plain_accuracy": float(np.mean(plain.argmax(1) == labels)),
        "purified_accuracy": float(np.mean([r.label == label for r, label in zip(results, labels, strict=True)])),
        "calls_per_image": float(np.mean([r.unet_calls for r in results])),
        "seconds_per_image": seconds / len(images),
        "seed": seed,
    }


def _random(shape: tuple[int, int, int], count: int, classes: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    images = rng.random((count, *shape), dtype=np.float32)
    return images, rng.integers(0, classes, count)
