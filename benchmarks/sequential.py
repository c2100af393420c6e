"""What sequential decisions save: votes that stop when the answer is settled, and certificates that stop at a radius.

python -m benchmarks.sequential [--images 64] [--n 2000 10000]
python -m benchmarks.sequential --bundle BUNDLE --data CLEAN.npz ATTACKED.npz [--provider openvino --precision bf16]

Without --data, the digits are taken. Images are rounded to 8 bits; certificates are counted for the first quarter of
the first file. Calls and answers do not depend on the machine, "faster" does.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

import edgepure
from edgepure.demo import demo_bundle, demo_images
from edgepure.images import load_labelled

SMOOTH = {"method": "smooth", "sigma": 0.25}


def votes(purifier: edgepure.Purifier, images: Any, name: str, preset: dict[str, Any], give_up: list[float]) -> None:
    """Fixed and sequential votes on the same images with the same noise."""
    rules: list[dict[str, Any]] = [{"count": 20, "rule": "majority"}]
    rules += [{"sequential": {"alpha": 0.05, "max": 20, "give_up": chance}} for chance in give_up]
    timed: list[tuple[Any, float]] = []
    for rule in rules:
        start = perf_counter()
        timed.append((purifier.run(images, {**preset, "votes": rule}, noise=1), perf_counter() - start))
    (fixed, slow), *others = timed
    for chance, (some, fast) in zip(give_up, others, strict=True):
        calls = [sum(r.unet_calls for r in results) for results in (fixed, some)]
        same = sum(a.label == b.label for a, b in zip(fixed, some, strict=True) if not b.abstained)
        abstained = sum(r.abstained for r in some)
        print(
            f"| {name} | {chance:g} | {calls[0]} | {calls[1]} | {calls[0] / calls[1]:.2f} x | {slow / fast:.2f} x | "
            f"{same} of {len(images) - abstained} | {abstained} |",
            flush=True,
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


def read(places: list[Path], purifier: edgepure.Purifier, count: int) -> dict[str, Any]:
    """Images [N, C, H, W] float32 of 8 bits by name; without files the digits of the demo, clean and attacked."""
    manifest = purifier.bundle.manifest
    demo = demo_images()
    found = {place.stem: load_labelled(place, manifest.image, manifest.classes).images for place in places}
    found = found or {"clean digits": demo.clean, "attacked digits": demo.adversarial}
    return {name: (np.rint(images * 255.0) / 255.0).astype(np.float32)[:count] for name, images in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=demo_bundle())
    parser.add_argument("--data", type=Path, nargs="*", default=[])
    parser.add_argument("--preset", help="whose votes are counted; default: denoised smoothing, as for certificates")
    parser.add_argument("--provider", default="cpu")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument(
        "--give-up", type=float, nargs="*", default=[0.0, 0.1], help="of sequential votes, one after another"
    )
    parser.add_argument("--n", type=int, nargs="*", default=[2000, 10_000])
    chosen = parser.parse_args()
    options = {"provider": chosen.provider, "precision": chosen.precision, "threads": chosen.threads}
    with edgepure.load(chosen.bundle, slots=64, **options) as purifier:
        data = read(chosen.data, purifier, chosen.images)
        first = next(iter(data.values()))
        preset: dict[str, Any] = {"method": SMOOTH}
        if chosen.preset:
            preset = purifier.presets[chosen.preset].model_dump(exclude_unset=True)
        purifier.run(first[:8], preset)  # engines open
        print("| votes on | give_up | calls, fixed | sequential | fewer | faster | same decisions | abstained |")
        print("|---|---|---|---|---|---|---|---|")
        for name, images in data.items():
            votes(purifier, images, name, preset, chosen.give_up)
        if not chosen.n:
            return
        print("\n| r | images | n | answers, fixed n | until settled | fewer | faster | certified | same decisions |")
        print("|---|---|---|---|---|---|---|---|---|")
        for radius in (0.25, 0.5):
            for n in chosen.n:
                certificates(purifier, first[: max(1, len(first) // 4)], n, radius)


if __name__ == "__main__":
    main()
