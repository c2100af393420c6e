"""CIFAR-10: clean and robust accuracy on the papers' 512 test images. See README.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgepure.errors import ImageError
from samples.real_models.evaluation import main

#: The binary version of the data set: one byte of label, then 3 x 32 x 32 bytes of pixels.
RECORD = 1 + 3 * 32 * 32
TEST_IMAGES = 10_000


def read(place: Path, chosen: NDArray[np.int64] | None) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """``test_batch.bin`` of ``cifar-10-batches-bin`` -> images [n, 3, 32, 32] in [0, 1], labels [n]."""
    file = place / "test_batch.bin" if place.is_dir() else place
    if not file.is_file():
        raise ImageError(f"there is no {file}; get the binary version of CIFAR-10 (the Python version is a pickle)")
    data = np.fromfile(file, np.uint8)
    if data.size != TEST_IMAGES * RECORD:
        raise ImageError(f"{file} has {data.size:,} bytes, expected {TEST_IMAGES * RECORD:,}: is it test_batch.bin?")
    records = data.reshape(TEST_IMAGES, RECORD)[chosen if chosen is not None else slice(None)]
    images = records[:, 1:].reshape(-1, 3, 32, 32).astype(np.float32) / 255.0
    labels: Any = records[:, 0].astype(np.int64)
    return images, labels


if __name__ == "__main__":
    main("cifar10", read, TEST_IMAGES, "out/cifar10-published")
