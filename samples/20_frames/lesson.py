"""A frame far larger than the network is purified by overlapping tiles; no seam is seen, and no digit is cut in two."""

from pathlib import Path

import numpy as np

import edgepure
from edgepure.images import save_image

digits = edgepure.demo_images()
side, rows, columns = 22, 6, 10

# A frame of 132 x 220 pixels with sixty attacked digits, where they please.
rng = np.random.default_rng(0)
frame = np.zeros((1, side * rows, side * columns), np.float32)
places = []
for number in range(rows * columns):
    top, left = (side * n + int(rng.integers(0, side - 16)) for n in divmod(number, columns))
    frame[:, top : top + 16, left : left + 16] = digits.adversarial[number]
    places.append((top, left))


def right(image: np.ndarray) -> float:
    """Per cent of the digits that the plain classifier reads rightly where they stand."""
    cut = np.stack([image[:, top : top + 16, left : left + 16] for top, left in places])
    return 100 * float(np.mean(purifier.logits(cut).argmax(axis=1) == digits.labels[: len(cut)]))


with edgepure.load(edgepure.demo_bundle()) as purifier:
    preset = purifier.preset("uniform").model_copy(update={"tiles": edgepure.TileSpec(overlap=0.5)})
    result = purifier.purify_frame(frame, preset, noise=3)
    print(
        f"{result.tiles[0]} x {result.tiles[1]} tiles, {result.unet_calls} rows, {purifier.counters.ticks} UNet calls"
    )
    print(f"digits read rightly: attacked {right(frame):.0f} %, purified {right(result.image):.0f} %")

    # However the tiles share calls, the frame is the same.
    with edgepure.load(edgepure.demo_bundle(), slots=3) as other:
        again = other.purify_frame(frame, preset, noise=3).image
    print(f"three slots instead of eight, less than 1e-5 apart: {np.abs(again - result.image).max() < 1e-5}")

    # SSNI: every tile gets the noise level that its score norm asks for.
    ssni = purifier.purify_frame(frame, "uniform-ssni", noise=3)
    assert ssni.score_norms is not None
    print(f"SSNI: score norms from {min(ssni.score_norms):.0f} to {max(ssni.score_norms):.0f}, one a tile")

Path("out").mkdir(exist_ok=True)
save_image(np.concatenate([frame, result.image], axis=1), "out/frames.png")
