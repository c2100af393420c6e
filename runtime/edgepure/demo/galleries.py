"""The pictures of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ..purify.results import Result
from .report import Gallery, Picture

Float32 = NDArray[np.float32]
Labels = NDArray[np.int64]


def one_of_each_class(labels: Labels) -> list[int]:
    """Index of the first image of every class: a choice that cannot flatter."""
    return [int(np.flatnonzero(labels == c)[0]) for c in np.unique(labels)]


def attack_gallery(
    title: str,
    note: str,
    classes: Sequence[str],
    clean: Float32,
    attacked: Float32,
    labels: Labels,
    plain_clean: Labels,
    plain_attacked: Labels,
    results: Sequence[Result],
    picks: Sequence[int],
) -> Gallery:
    """Clean, adversarial, mask and purified, for the images ``picks`` of the arrays ``[N, ...]``."""
    strips = []
    for i in picks:
        truth = int(labels[i])
        result = results[i]
        pictures = [
            _judged(clean[i], "clean", classes, int(plain_clean[i]), truth),
            _judged(attacked[i], "adversarial", classes, int(plain_attacked[i]), truth),
        ]
        if result.mask is not None:
            share = f"mask, {100 * float(result.mask.mean()):.0f} %"
            pictures.append(Picture(attacked[i], share, mask=result.mask))
        pictures.append(_judged(result.image, "purified", classes, result.label, truth))
        strips.append((f"true class {classes[truth]}", tuple(pictures)))
    return Gallery(title, note, tuple(strips))


def method_gallery(
    title: str,
    note: str,
    classes: Sequence[str],
    attacked: Float32,
    labels: Labels,
    plain_attacked: Labels,
    results: Mapping[str, Sequence[Result]],
    picks: Sequence[int],
) -> Gallery:
    """One adversarial image and what every method makes of it, for the images ``picks``."""
    strips = []
    for i in picks:
        truth = int(labels[i])
        pictures = [_judged(attacked[i], "adversarial", classes, int(plain_attacked[i]), truth)]
        for name, found in results.items():
            pictures.append(_judged(found[i].image, name, classes, found[i].label, truth))
        strips.append((f"true class {classes[truth]}", tuple(pictures)))
    return Gallery(title, note, tuple(strips), wide=True)


def _judged(pixels: Float32, title: str, classes: Sequence[str], label: int, truth: int) -> Picture:
    return Picture(pixels, title, classes[label], right=label == truth)
