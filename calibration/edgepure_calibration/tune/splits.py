"""The images of a tuning run, in two splits that share none: one for the search, one for the finalists."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from edgepure.errors import ConfigError
from edgepure.images.dataset import LabelledImages

from ..data_checks import PlainLogits, check_attacks, check_images, check_labels
from .settings import TuneSettings

#: Fewer images of a split say nothing about an accuracy.
FEWEST = 8

#: The seeds of the two splits' attacks are the run's plus these.
SEARCH_TRANSFER, FINAL_TRANSFER = 1, 2

#: Attacks the plain classifier on labelled images; the seed makes the two splits' attacks different ones.
Transfer = Callable[[LabelledImages, int], LabelledImages]


@dataclass(frozen=True)
class Split:
    """Labelled images of one split.

    Attributes:
        clean: as they are.
        attacked: images that were attacked on the plain classifier.
        whitebox: clean images to attack through the defence.
    """

    clean: LabelledImages
    attacked: LabelledImages
    whitebox: LabelledImages


def make_splits(
    data: LabelledImages,
    attacked: LabelledImages | None,
    test: LabelledImages | None,
    settings: TuneSettings,
    plain: PlainLogits,
    transfer: Transfer | None,
) -> tuple[Split, Split]:
    """Split the data.

    Args:
        data: labelled clean images.
        attacked: images that were attacked on the plain classifier, labelled, or as many as ``data`` and in its order;
            None: ``transfer`` attacks the clean ones.
        test: clean images for the finalists; None: those of ``data`` that the search does not use.
        settings: how many of each.
        plain: logits of the plain classifier, to prove that attacks are attacks.
        transfer: attacks the plain classifier; None where PyTorch is missing.

    Raises:
        ConfigError, ImageError: the data cannot serve; one sentence says why.
    """
    need = FEWEST if test is not None else 2 * FEWEST
    check_images(data, "the data", need)
    check_labels(data, "the data")
    search, rest = _split(data, settings.images, settings.seed, keep_rest=test is None)
    if test is not None:
        check_images(test, "the test data", FEWEST)
        check_labels(test, "the test data")
        rest = test
    final = _some(rest, settings.final_images, settings.seed)
    if attacked is None:
        if transfer is None:
            raise ConfigError(
                "there is nothing to attack with: give images that were attacked on this bundle's classifier "
                "(--attacked), or install PyTorch with `pip install edgepure[export]`, so that they can be made",
                code="E-data-attacked",
            )
        hit = transfer(search, settings.seed + SEARCH_TRANSFER), transfer(final, settings.seed + FINAL_TRANSFER)
    else:
        hit = _attacked_images(attacked, data, settings, test_apart=test is not None)
    for clean, images, what in ((search, hit[0], "search"), (final, hit[1], "finalists")):
        try:
            check_attacks(clean, images, plain, f"the attacked images for the {what}")
        except ConfigError as error:
            if attacked is not None:
                raise
            raise ConfigError(
                f"PGD of radius {settings.eps:.3g} hardly harms this bundle's classifier without any defence, so "
                "there is nothing to tune; choose a larger eps",
                code="E-attack-weak",
            ) from error
    return (
        Split(search, hit[0], _some(search, settings.whitebox_images, settings.seed)),
        Split(final, hit[1], _some(final, settings.final_whitebox_images, settings.seed)),
    )


def _attacked_images(
    attacked: LabelledImages, data: LabelledImages, settings: TuneSettings, *, test_apart: bool
) -> tuple[LabelledImages, LabelledImages]:
    if attacked.labels is None and len(attacked) == len(data):
        attacked = replace(attacked, labels=data.labels)
    check_images(attacked, "the attacked images", 2 * FEWEST)
    check_labels(attacked, "the attacked images")
    # Equal labels draw equal positions, so that of paired images no split holds the other's clean ones.
    count = settings.images if not test_apart or len(attacked) > settings.images else len(attacked) // 2
    first, rest = _split(attacked, count, settings.seed, keep_rest=True)
    return first, _some(rest, settings.final_images, settings.seed)


def _split(data: LabelledImages, count: int, seed: int, *, keep_rest: bool) -> tuple[LabelledImages, LabelledImages]:
    """``count`` images (at most half, if the rest is needed) and the others."""
    numbered = replace(data, names=tuple(map(str, range(len(data)))))
    most = len(data) // 2 if keep_rest else len(data)
    chosen = np.array([int(name) for name in numbered.take(min(count, most), seed).names])
    others = np.setdiff1d(np.arange(len(data)), chosen)
    return data.pick(chosen), data.pick(others)


def _some(data: LabelledImages, count: int, seed: int) -> LabelledImages:
    return data.take(min(count, len(data)), seed)
