"""Simulations of what judges variants and tasks: the gate of `edgepure quantize`, the intervals of metrics, the checks
of data sets. `benchmarks.stated_rates` puts them into its table."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from edgepure.errors import ConfigError
from edgepure.images.dataset import LabelledImages
from edgepure.purify.boxes import Boxes
from edgepure_calibration.bounds import Metric, mean_high, metric_interval
from edgepure_calibration.data_checks import check_attacks
from edgepure_calibration.quantize.labels import decision_checks, flips_of
from edgepure_calibration.quantize.verdict import Limits
from edgepure_calibration.truth.metrics import iou_of, precision_of

Labels = NDArray[np.int64]


def clustered(rng: np.random.Generator, share: float, images: int, noises: int, spread: str) -> NDArray[np.bool_]:
    """Events ``[images, noises]`` of a mean share: ``alike`` for every image, ``whole`` images or none of their
    noises, or between the two (``mixed``: beta-distributed shares)."""
    if spread == "whole":
        return np.repeat(rng.random((images, 1)) < share, noises, axis=1)
    own = np.full(images, share) if spread == "alike" else rng.beta(2 * share, 2 * (1 - share), images)
    return rng.random((images, noises)) < own[:, None]


def redrawn(rng: np.random.Generator, share: float, images: int, noises: int, spread: str) -> Labels:
    """Labels ``[images, noises]`` of which two of an image differ with the mean probability ``share``: of every image
    alike, of few images that are as good as a coin (``whole``), or between the two."""
    if spread == "alike":
        minor = np.full(images, (1.0 - np.sqrt(1.0 - 2.0 * share)) / 2.0)
    elif spread == "whole":
        minor = 0.5 * (rng.random(images) < 2.0 * share)
    else:
        minor = np.where(rng.random(images) < 0.25, (1.0 - np.sqrt(1.0 - 8.0 * share)) / 2.0, 0.0)
    return (rng.random((images, noises)) < minor[:, None]).astype(np.int64)


def gate_passes(images: int, noises: int, redraw: float, spread: str, runs: int, seed: int = 0) -> float:
    """How often a variant passes the check of flips that flips exactly what is not allowed any more: the limit above
    what new noise flips in truth. ``redraw``: of the decisions, by new noise."""
    rng, limits, passed = np.random.default_rng(seed), Limits(), 0
    for _ in range(runs):
        theirs = redrawn(rng, redraw, images, noises, spread)
        mine = theirs + 2 * clustered(rng, redraw + limits.flips, images, noises, spread)
        passed += decision_checks({"clean": flips_of(mine, theirs, None)}, limits)[0].passed
    return passed / runs


def loss_passes(images: int, noises: int, spread: str, runs: int, seed: int = 0) -> float:
    """How often a variant passes the check of accuracy that loses exactly what is not allowed any more: 3 points lost,
    2 gained where fp32 was wrong (a tenth of the images)."""
    rng, limits, passed = np.random.default_rng(seed), Limits(), 0
    truth = np.zeros(images, np.int64)
    for _ in range(runs):
        wrong = rng.random(images) < 0.1
        theirs = np.repeat(wrong[:, None], noises, axis=1).astype(np.int64)
        lost = clustered(rng, (0.02 + limits.accuracy) / 0.9, images, noises, spread) & ~wrong[:, None]
        gained = clustered(rng, 0.02 / 0.1, images, noises, spread) & wrong[:, None]
        mine = np.where(lost, 2, np.where(gained, 0, theirs))
        passed += decision_checks({"clean": flips_of(mine, theirs, truth)}, limits)[1].passed
    return passed / runs


def mean_too_low(images: int, noises: int, mean: float, runs: int, seed: int = 0) -> float:
    """How often the upper bound of a mean of losses lies below it: most of an image are tiny, few are whole."""
    rng, found = np.random.default_rng(seed), 0
    for _ in range(runs):
        own = rng.beta(0.2, 0.2 * (1.0 - mean) / mean, images)
        found += mean_high(np.clip(own[:, None] + 0.001 * rng.random((images, noises)) - 0.0005, 0.0, 1.0)) < mean
    return found / runs


def metric_missed(make: Callable[[np.random.Generator, int], Metric], images: int, runs: int) -> float:
    """How often the interval of a metric of images misses its value of 20,000 of them."""
    true = make(np.random.default_rng(1), 20_000)(np.ones(20_000))
    rng, found = np.random.default_rng(2), 0
    for _ in range(runs):
        low, high = metric_interval(make(rng, images), images)
        found += not low <= true <= high
    return found / runs


def unions(rng: np.random.Generator, images: int) -> Metric:
    """mIoU of label maps of three classes, one of them rare; some images are all wrong."""
    rare = rng.random((images, 1, 1)) < 0.1
    truth = np.where(rare & (rng.random((images, 4, 4)) < 0.3), 2, rng.random((images, 4, 4)) < 0.4).astype(np.int64)
    wrong = rng.random((images, 1, 1)) < rng.beta(0.3, 1.2, (images, 1, 1))
    answers = np.where(wrong & (rng.random(truth.shape) < 0.7), rng.integers(0, 3, truth.shape), truth)
    return iou_of(answers, truth, 3)


def precisions(rng: np.random.Generator, images: int) -> Metric:
    """mAP of boxes of two classes: some are missed, some are found where there is nothing."""
    answers, truth = [], []
    for _ in range(images):
        count = int(rng.integers(1, 4))
        boxes = np.array([[30.0 * i, 0.0, 30.0 * i + 20.0, 20.0] for i in range(count)], np.float32)
        labels = rng.integers(0, 2, count)
        truth.append(Boxes(boxes, np.ones(count, np.float32), labels))
        kept = rng.random(count) < 0.8
        more = int(rng.poisson(0.4))
        away = np.array([[0.0, 50.0, 20.0, 70.0]] * more, np.float32).reshape(-1, 4)
        scores = np.concatenate([rng.beta(4, 2, int(kept.sum())), rng.beta(2, 3, more)]).astype(np.float32)
        theirs = np.concatenate([labels[kept], rng.integers(0, 2, more)])
        answers.append(Boxes(np.concatenate([boxes[kept], away]), scores, theirs))
    return precision_of(answers, truth)


def hits(share: float) -> Callable[[np.random.Generator, int], Metric]:
    """Recall: of each image yes or no."""

    def make(rng: np.random.Generator, images: int) -> Metric:
        # the same share in each 20,000, so that the value that is looked for is the true one
        found = rng.permutation(images) < share * images if images == 20_000 else rng.random(images) < share
        return lambda weights: float(weights @ found / weights.sum())

    return make


def no_attacks(clean: int, attacked: int, share: float, runs: int, seed: int = 0) -> float:
    """How often images that are read as well as clean ones are taken for attacks."""
    rng, found = np.random.default_rng(seed), 0
    for _ in range(runs):
        before, after = (labelled(rng.random(n) < share) for n in (clean, attacked))
        try:
            check_attacks(before, after, lambda images: images[:, 0, 0], "x")
            found += 1
        except ConfigError:
            pass
    return found / runs


def labelled(right: NDArray[np.bool_]) -> LabelledImages:
    """Images that `no_attacks`' classifier reads right or wrong as ``right`` says: their pixels are its logits."""
    images = np.zeros((len(right), 1, 1, 2), np.float32)
    images[:, 0, 0, 0] = ~right
    images[:, 0, 0, 1] = right
    return LabelledImages(images, np.ones(len(right), np.int64), tuple(map(str, range(len(right)))))
