"""A segmenter attacked on its own loss, and behind a purification: mIoU before and after, and pictures."""

from __future__ import annotations

import sys
from pathlib import Path

import edgepure
from edgepure_calibration.evaluate_task import TaskAttack, evaluate_task
from edgepure_calibration.truth import Truth
from edgepure_export import Task, export_bundle

sys.path.append(str(Path(__file__).resolve().parents[2]))
from samples.digits.data import load_digits_split
from samples.digits.models import load_unet
from samples.scenes.data import PIXELS, SIZE, make_scenes
from samples.scenes.models import load_segmenter
from samples.scenes.pictures import gray, label_map, save_grid
from samples.scenes.tables import print_rows

PRESET = {"method": {"method": "uniform", "t_star": 100, "steps": 3, "sampler": "ddim"}}


def main() -> None:
    out = Path("out/segment")
    scenes = make_scenes(load_digits_split().test, 8, seed=5)
    bundle = export_bundle(
        None, load_unet(), out / "bundle", task=Task("segmentation", load_segmenter(), PIXELS), image_size=SIZE,
        channels=1, presets={"uniform": PRESET}, sample_images=scenes.images, overwrite=True,
    )  # fmt: skip
    attack = TaskAttack(eps=0.06, steps=6)
    found = evaluate_task(bundle, Truth(scenes.images, scenes.pixels), attack=attack, noise_seed=1)
    print_rows(found)

    with edgepure.load(bundle) as purifier:
        plain = purifier.predict(found.images["plain"], purify=False)
        defended = purifier.predict(found.images["uniform"], noise=1)
    save_grid(
        [
            [gray(scenes.images[i]), label_map(scenes.pixels[i]), gray(found.images["plain"][i]),
             label_map(plain[i].label_map), gray(defended[i].image), label_map(defended[i].label_map)]
            for i in range(4)
        ],
        out / "segment.png",
    )  # fmt: skip
    print(f"pictures: {out / 'segment.png'}")


if __name__ == "__main__":
    main()
