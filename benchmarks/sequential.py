"""What sequential decisions save: votes that stop when the answer is settled, and certificates that stop at a radius.

python -m benchmarks.sequential [--images 64] [--n 2000 10000]
"""

from __future__ import annotations

import argparse
from time import perf_counter
from typing import Any

import numpy as np

import edgepure
from edgepure.demo import demo_bundle, demo_images

SMOOTH = {"method": "smooth", "sigma": 0.25}


def votes(purifier: edgepure.Purifier, images: Any, name: str) -> None:
    """Fixed and sequential votes on the same images with the same noise."""
    timed: dict[str, tuple[Any, float]] = {}
    for kind, rule in (
        ("20 fixed votes", {"count": 20, "rule": "majority"}),
        ("sequential, alpha 0.05, at most 20", {"sequential": {"alpha": 0.05, "max": 20}}),
    ):
        start = perf_counter()
        results = purifier.run(images, {"method": SMOOTH, "votes": rule}, noise=1)
        timed[kind] = results, perf_counter() - start
    (fixed, slow), (some, fast) = timed.values()
    calls = [sum(r.unet_calls for r in results) for results in (fixed, some)]
    same = sum(a.label == b.label for a, b in zip(fixed, some, strict=True) if not b.abstained)
    abstained = sum(r.abstained for r in some)
    print(
        f"| {name} | {calls[0]} | {calls[1]} | {calls[0] / calls[1]:.2f} x | {slow / fast:.2f} x | "
        f"{same} of {len(images) - abstained} | {abstained} |"
    )


def certificates(purifier: edgepure.Purifier, images: Any, n: int, radius: float) -> None:
    """Counting to a fixed n, and until a radius is settled."""
    start = perf_counter()
    fixed = purifier.certify(images, {"method": SMOOTH}, n=n, noise=1)
    middle = perf_counter()
    some = purifier.certify(images, {"method": SMOOTH}, n=n, radius=radius, noise=1)
    end = perf_counter()
    answers = [sum(c.answers for c in found) for found in (fixed, some)]
    reached = [[c.radius >= radius for c in found] for found in (fixed, some)]
    same = sum(a == b for a, b in zip(*reached, strict=True))
    print(
        f"| {radius} | {len(images)} | {n} | {answers[0]} | {answers[1]} | {answers[0] / answers[1]:.2f} x | "
        f"{(middle - start) / (end - middle):.2f} x | {sum(reached[1])} | {same} of {len(images)} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--n", type=int, nargs="+", default=[2000, 10_000])
    chosen = parser.parse_args()
    demo = demo_images()
    with edgepure.load(demo_bundle(), threads=1, slots=64) as purifier:
        purifier.run(demo.clean[:8], {"method": SMOOTH})  # engines open
        print("| votes on | calls, fixed | sequential | fewer | faster | same decisions | abstained |")
        print("|---|---|---|---|---|---|---|")
        votes(purifier, demo.clean[: chosen.images], "clean digits")
        votes(purifier, demo.adversarial[: chosen.images], "attacked digits")
        images = (np.rint(demo.clean[: chosen.images // 4].astype(np.float64) * 255.0) / 255.0).astype(np.float32)
        print("\n| r | images | n | answers, fixed n | until settled | fewer | faster | certified | same decisions |")
        print("|---|---|---|---|---|---|---|---|---|")
        for radius in (0.25, 0.5):
            for n in chosen.n:
                certificates(purifier, images, n, radius)


if __name__ == "__main__":
    main()
