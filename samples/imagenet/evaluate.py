"""ImageNet: clean and robust accuracy on the papers' 512 validation images. See README.md."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgepure.errors import ImageError
from samples.real_models.evaluation import main

TEST_IMAGES = 50_000


def files(folder: Path) -> list[tuple[Path, int]]:
    """Image files and labels in the order of the papers: class folders by name, files by name."""
    classes = sorted(p for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []
    if len(classes) != 1000:
        raise ImageError(f"{folder} has {len(classes)} class folders, expected the 1000 of ILSVRC2012's validation set")
    found = [(file, label) for label, place in enumerate(classes) for file in sorted(place.iterdir()) if file.is_file()]
    if len(found) != TEST_IMAGES:
        raise ImageError(f"{folder} has {len(found)} images, expected {TEST_IMAGES}")
    return found


def load(file: Path) -> NDArray[np.float32]:
    """[3, 256, 256] in [0, 1] as the papers' code makes it: shorter side 256, centre 224, then bilinear to 256."""
    with Image.open(file) as opened:
        image = opened.convert("RGB")
    w, h = image.size
    scale = 256 / min(w, h)
    image = image.resize((max(256, int(w * scale)), max(256, int(h * scale))), Image.Resampling.BILINEAR)
    left, top = round((image.width - 224) / 2), round((image.height - 224) / 2)
    image = image.crop((left, top, left + 224, top + 224)).resize((256, 256), Image.Resampling.BILINEAR)
    return np.asarray(image, np.float32).transpose(2, 0, 1) / 255.0


def read(place: Path, chosen: NDArray[np.int64] | None) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The chosen validation images and their labels."""
    every = files(place)
    picked = [every[int(i)] for i in (chosen if chosen is not None else range(len(every)))]
    return np.stack([load(file) for file, _ in picked]), np.array([label for _, label in picked], np.int64)


if __name__ == "__main__":
    main("imagenet", read, TEST_IMAGES, "out/imagenet-published")
