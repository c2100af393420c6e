"""`python -m benchmarks.frames [--bundle PATH] [--sizes 128x64,...]`: frames by tiles, beside their UNet calls.

For each size: tiles, the seconds of a frame, its ratio to as many bare step calls of full batches (cutting, noise and
blending on top), and the largest memory of NumPy's arrays in units of the frame's own.
"""

from __future__ import annotations

import argparse
import tracemalloc
from typing import Any

import numpy as np

import edgepure
from edgepure.measure import interleaved
from edgepure.types import Float32

SIZES = ((64, 64), (128, 128), (256, 256), (512, 256))
OVERLAPS = (0.25, 0.5)


def measure(purifier: edgepure.Purifier, size: tuple[int, int], overlap: float, repeats: int) -> dict[str, Any]:
    """One size and overlap, with the preset ``uniform``."""
    base = purifier.preset("uniform")
    preset = base.model_copy(update={"tiles": edgepure.TileSpec(overlap=overlap)})
    frame = np.random.default_rng(0).random((purifier.image_shape[0], *size), np.float32)
    stepper, found = purifier.stepper("step"), purifier.purify_frame(frame, preset, noise=1)
    ticks, slots = purifier.counters.ticks, stepper.capacity
    row = purifier.plan(preset).coeffs[0]

    def frames() -> None:
        purifier.purify_frame(frame, preset, noise=1)

    def calls() -> None:
        stepper.coeffs[:] = row
        for _ in range(ticks):
            stepper.step(slots)
        stepper.wait()

    times = interleaved({"frame": frames, "calls": calls}, repeats)
    return {
        "size": size,
        "overlap": overlap,
        "tiles": found.tiles[0] * found.tiles[1],
        "calls": ticks,
        "seconds": times.median("frame"),
        "ratio": times.ratio("frame", "calls"),
        "memory": peak(purifier, preset, frame) / frame.nbytes,
    }


def peak(purifier: edgepure.Purifier, preset: edgepure.Preset, frame: Float32) -> int:
    """Largest size of the arrays that a frame takes beside itself, in bytes."""
    tracemalloc.start()
    try:
        purifier.purify_frame(frame, preset, noise=1)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", default=None, help="default: the digits")
    parser.add_argument("--sizes", default=",".join(f"{w}x{h}" for h, w in SIZES), help="width x height of each frame")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    sizes = [tuple(int(n) for n in reversed(text.split("x"))) for text in options.sizes.split(",")]
    print("| frame | overlap | tiles | UNet calls | s/frame | times its calls | memory, frames |\n" + 7 * "|---" + "|")
    with edgepure.load(options.bundle or edgepure.demo_bundle()) as purifier:
        for size in sizes:
            for overlap in OVERLAPS:
                r = measure(purifier, size, overlap, options.repeats)
                print(
                    f"| {size[1]} x {size[0]} | {overlap:g} | {r['tiles']} | {r['calls']} | {r['seconds']:.3g} | "
                    f"{r['ratio']:.2f} | {r['memory']:.1f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
