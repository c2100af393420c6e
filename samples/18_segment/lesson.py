"""A segmenter attacked on its own loss, alone and behind a purification by tiles: mIoU before and after, pictures."""

from __future__ import annotations

import sys
from pathlib import Path

import edgepure
from edgepure_calibration.evaluate_task import TaskAttack, evaluate_task, write_card, write_report
from edgepure_calibration.truth import Truth
from edgepure_export import Task, export_bundle

sys.path.append(str(Path(__file__).resolve().parents[2]))
from samples.digits.data import IMAGE_SIZE, load_digits_split
from samples.digits.models import load_unet
from samples.scenes.data import PIXELS, SIZE, make_scenes
from samples.scenes.models import load_segmenter
from samples.scenes.pictures import gray, label_map, save_grid
from samples.scenes.tables import print_rows

# The diffusion model knows digits of 16 x 16 pixels: a canvas is purified by 4 x 4 tiles that overlap by a quarter.
PRESET = {
    "method": {"method": "uniform", "t_star": 100, "steps": 3, "sampler": "ddim"},
    "tiles": {"overlap": 0.25},
}


def main() -> None:
    out = Path("out/segment")
    scenes = make_scenes(load_digits_split().test, 8, seed=5)
    task = Task("segmentation", load_segmenter(), PIXELS, frame=(SIZE, SIZE))
    bundle = export_bundle(
        None, load_unet(), out / "bundle", task=task, image_size=IMAGE_SIZE, channels=1, presets={"uniform": PRESET},
        sample_images=scenes.images, overwrite=True,
    )  # fmt: skip
    attack = TaskAttack(eps=0.06, steps=6)
    found = evaluate_task(bundle, Truth(scenes.images, scenes.pixels), attack=attack, noise_seed=1)
    print_rows(found)
    write_report(found, out / "report.html")
    write_card(bundle, found)

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
    print(f"report: {out / 'report.html'}, pictures: {out / 'segment.png'}")


if __name__ == "__main__":
    main()
