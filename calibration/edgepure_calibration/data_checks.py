"""Is a data set fit to calibrate, tune or evaluate with? Each check refuses in one sentence what could only give
numbers without a meaning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgepure.errors import ConfigError, ImageError
from edgepure.images.dataset import LabelledImages

from .bounds import as_few


class Pictures(Protocol):
    """A data set: images ``[N, C, H, W]`` float32 in [0, 1]."""

    @property
    def images(self) -> NDArray[np.float32]: ...

    def __len__(self) -> int: ...


#: Images [B, C, H, W] in [0, 1] -> logits [B, N] of the plain classifier.
PlainLogits = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def check_images(data: Pictures, what: str, fewest: int) -> None:
    """At least ``fewest`` images, not one picture again and again, and not only constant ones. ``what`` names the data.

    Raises:
        ImageError: they are not.
    """
    if len(data) < fewest:
        raise ImageError(
            f"{what}: {len(data)} images are too few, at least {fewest} are needed; give more", code="E-data-few"
        )
    flat = data.images.reshape(len(data), -1)
    constant = int((np.ptp(flat, axis=1) == 0.0).sum())
    if constant == len(data):
        raise ImageError(f"{what}: every image is one constant colour; give real images", code="E-data-constant")
    if len(data) > 1 and bool((flat == flat[0]).all()):
        raise ImageError(
            f"{what}: all {len(data)} images are the same picture; give different ones", code="E-data-same"
        )


def check_labels(data: LabelledImages, what: str) -> NDArray[np.int64]:
    """The labels ``[N]``; there are some, of at least two classes.

    Raises:
        ConfigError: unlabelled, or one class only.
    """
    if data.labels is None:
        raise ConfigError(
            f"{what}: the images have no labels, and accuracy needs them; add the array `labels` to the .npz, or sort "
            "the images into one sub-folder per class",
            code="E-data-labels",
        )
    if len(data) and len(np.unique(data.labels)) < 2:
        raise ConfigError(
            f"{what}: all images are of one class ({int(data.labels[0])}), so a classifier that always says the same "
            "would look perfect; give images of several classes",
            code="E-data-one-class",
        )
    return data.labels


def check_attacks(clean: LabelledImages, attacked: LabelledImages, plain: PlainLogits, what: str) -> None:
    """The plain classifier reads attacked images clearly worse than clean ones: its accuracy on them lies below that on
    the clean ones with 95 % confidence (one-sided, Fisher's exact test). Both data sets are labelled.

    Raises:
        ConfigError: it does not, so these images are no attacks on this classifier.
    """
    before, after = (_right(data, plain) for data in (clean, attacked))
    if as_few(after, len(attacked), before, len(clean)) > 0.05:
        raise ConfigError(
            f"{what}: these images are no attacks on this bundle's classifier, which reads {after} of {len(attacked)} "
            f"right without any defence (clean ones: {before} of {len(clean)}); give images that were attacked on it",
            code="E-attacked-weak",
        )


def _right(data: LabelledImages, plain: PlainLogits) -> int:
    assert data.labels is not None
    return int((plain(data.images).argmax(axis=1) == data.labels).sum())


def check_pairs(pairs: int) -> None:
    """Raise ConfigError for a number of answers of two precisions to the same noise that is out of range."""
    if not 10 <= pairs <= 1_000_000:
        raise ConfigError(f"pairs {pairs} must lie in 10 .. 1000000", code="E-carry-pairs")
