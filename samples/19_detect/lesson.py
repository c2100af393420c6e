"""A detector attacked on the loss that it was trained with, alone and behind a purification by tiles: mAP before and
after, and pictures."""

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
from samples.scenes.data import DIGITS, SIZE, make_scenes
from samples.scenes.losses import detection_loss_of_outputs
from samples.scenes.models import load_detector
from samples.scenes.pictures import save_grid, with_boxes
from samples.scenes.tables import print_rows

# The diffusion model knows digits of 16 x 16 pixels: a canvas is purified by 4 x 4 tiles that overlap by a quarter.
PRESET = {
    "method": {"method": "uniform", "t_star": 100, "steps": 3, "sampler": "ddim"},
    "tiles": {"overlap": 0.25},
}


def main() -> None:
    out = Path("out/detect")
    scenes = make_scenes(load_digits_split().test, 8, seed=5)
    task = Task("detection", load_detector(), DIGITS, frame=(SIZE, SIZE))
    bundle = export_bundle(
        None, load_unet(), out / "bundle", task=task, image_size=IMAGE_SIZE, channels=1, presets={"uniform": PRESET},
        sample_images=scenes.images, overwrite=True,
    )  # fmt: skip
    truth = Truth(scenes.images, scenes.digits, scenes.boxes)
    attack = TaskAttack(eps=0.1, steps=6)
    found = evaluate_task(bundle, truth, attack=attack, loss=detection_loss_of_outputs, noise_seed=1)
    print_rows(found)
    write_report(found, out / "report.html")
    write_card(bundle, found)

    with edgepure.load(bundle) as purifier:
        clean = purifier.predict(scenes.images, purify=False)
        plain = purifier.predict(found.images["plain"], purify=False)
        defended = purifier.predict(found.images["uniform"], noise=1)
        voted = purifier.predict(found.images["uniform"], noise=1, votes=3)
    rows = [(clean[i], plain[i], defended[i], voted[i]) for i in range(4)]
    save_grid([[with_boxes(answer.image, answer) for answer in row] for row in rows], out / "detect.png")
    print(f"report: {out / 'report.html'}, pictures: {out / 'detect.png'}")


if __name__ == "__main__":
    main()
