"""The digits data set: scikit-learn's 8 x 8 digits as 16 x 16 grayscale images in [0, 1], with one fixed split."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Images = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

IMAGE_SIZE = 16
CLASSES = 10
SPLIT_SEED = 20250301
TEST_PER_CLASS = 36
VALIDATION_PER_CLASS = 15


@dataclass(frozen=True)
class Subset:
    """Some digits: `pixels` uint8 [N, 8, 8] in 0..16 as scikit-learn ships them, `labels` int64 [N]."""

    pixels: npt.NDArray[np.uint8]
    labels: Labels

    @property
    def images(self) -> Images:
        """The images that the networks see: float32 [N, 1, 16, 16] in [0, 1]."""
        return to_images(self.pixels)

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class DigitsSplit:
    """Three disjoint subsets. `test` (360, 36 a class) is held back: nothing is trained or tuned on it.

    `validation` (150, 15 a class) is for tuning the recipe, `train` is the rest (1287); the final training uses both.
    """

    train: Subset
    validation: Subset
    test: Subset


def to_images(pixels: npt.NDArray[np.uint8]) -> Images:
    """Turn uint8 [N, 8, 8] pixels in 0..16 into float32 [N, 1, 16, 16] images in [0, 1].

    Pixels are divided by 16 and resized by two with bilinear interpolation at half-pixel centres, clamped at the
    border: output 2k blends inputs k-1 and k by 1/4 and 3/4, output 2k+1 blends inputs k and k+1 by 3/4 and 1/4, in
    rows and in columns (`interpolate(mode="bilinear", align_corners=False)` in PyTorch). All results are multiples
    of 1/256, so float32 holds them exactly. Raises ValueError on any other shape.
    """
    if pixels.ndim != 3 or pixels.shape[1:] != (8, 8):
        raise ValueError(f"digits must be [N, 8, 8] pixels, got shape {pixels.shape}")
    return upsample_2x(upsample_2x(pixels.astype(np.float32) / 16.0, axis=1), axis=2)[:, None]


def upsample_2x(values: Images, axis: int) -> Images:
    """Double the length of one axis with bilinear interpolation at half-pixel centres, clamped at the border."""
    size = values.shape[axis]
    index = np.arange(size)
    before = np.take(values, np.maximum(index - 1, 0), axis)
    after = np.take(values, np.minimum(index + 1, size - 1), axis)
    doubled = np.stack([0.25 * before + 0.75 * values, 0.75 * values + 0.25 * after], axis + 1)
    shape = (*values.shape[:axis], 2 * size, *values.shape[axis + 1 :])
    return np.ascontiguousarray(doubled.reshape(shape), np.float32)


def split_indices(labels: Labels) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Indices of (train, validation, test), ascending: a stratified draw with a fixed seed.

    `RandomState` is used because NumPy guarantees that its stream never changes.
    """
    random = np.random.RandomState(SPLIT_SEED)
    parts: tuple[list[npt.NDArray[np.int64]], ...] = ([], [], [])
    for digit in range(CLASSES):
        members = random.permutation(np.flatnonzero(labels == digit))
        cuts = [TEST_PER_CLASS, TEST_PER_CLASS + VALIDATION_PER_CLASS]
        test, validation, train = np.split(members, cuts)
        for part, chosen in zip(parts, (train, validation, test), strict=True):
            part.append(chosen)
    train, validation, test = (np.sort(np.concatenate(part)).astype(np.int64) for part in parts)
    return train, validation, test


def load_digits_split() -> DigitsSplit:
    """Load the digits that come with scikit-learn (no download) and split them."""
    from sklearn.datasets import load_digits  # heavy, and only training and export need it

    bunch = load_digits()
    pixels = bunch.images.astype(np.uint8)
    labels = bunch.target.astype(np.int64)
    train, validation, test = (Subset(pixels[index], labels[index]) for index in split_indices(labels))
    return DigitsSplit(train, validation, test)
