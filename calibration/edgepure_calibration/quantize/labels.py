"""Judging a variant by labels: how many decisions it flips beside those that new noise flips, and how many right ones
it loses."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgepure.images.dataset import LabelledImages
from edgepure.intervals import clopper_pearson
from edgepure.methods.presets import Preset
from edgepure.purify.purifier import Purifier
from edgepure.types import Float32, Progress

from .judge import Answers, Judge
from .verdict import Check, Flips, Limits, check

Labels = NDArray[np.int64]


class LabelJudge(Judge[LabelledImages]):
    """By what the classifier says."""

    def answers(
        self,
        purifier: Purifier,
        images: Float32,
        preset: Preset,
        noises: int,
        seed: int,
        masks: Float32 | None,
        on_progress: Progress | None,
    ) -> Answers:
        results = purifier.run(images, preset, votes=noises, noise=seed, masks=masks, on_progress=on_progress)
        return {"labels": np.array([result.vote_labels for result in results], np.int64)}

    def changes(
        self, mine: Mapping[str, Answers], theirs: Mapping[str, Answers], limits: Limits
    ) -> tuple[dict[str, Flips], list[Check]]:
        flips = {
            part: flips_of(mine[part]["labels"], theirs[part]["labels"], data.labels)
            for part, data in self.data.items()
        }
        return flips, decision_checks(flips, limits)


def flips_of(mine: Labels, theirs: Labels, truth: NDArray[Any] | None) -> Flips:
    """What a variant changes, from its labels and those of fp32 with the same noises, each ``[images, noises]``, and
    the true ones ``[images]`` or None."""
    flips = mine != theirs
    counted = Flips(
        images=len(mine),
        decisions=mine.size,
        flipped=int(flips.sum()),
        high=share_bounds(flips)[1],
        redrawn=int((theirs != np.roll(theirs, 1, axis=1)).sum()),
    )
    if truth is None:
        return counted
    right, right_fp32 = (answers == truth[:, None] for answers in (mine, theirs))
    return replace(
        counted,
        accuracy=float(right.mean()),
        accuracy_fp32=float(right_fp32.mean()),
        loss_high=share_bounds(right_fp32 & ~right)[1] - share_bounds(right & ~right_fp32)[0],
    )


def decision_checks(flips: Mapping[str, Flips], limits: Limits) -> list[Check]:
    """The gate in decisions: how many flip, and how many of the right ones are lost, by data set."""
    checks = []
    for part, f in flips.items():
        redrawn = f.redrawn / f.decisions
        words = (
            f"it flips {f.flipped} of {f.decisions} decisions on {part} images (at most {100 * f.high:.2f} % with 95 % "
            f"confidence, by {f.images} images), new noise flips {100 * redrawn:.2f} %; "
            f"{100 * (redrawn + limits.flips):.2f} % are allowed"
        )
        checks.append(check(f"flips, {part}", f.high, redrawn + limits.flips, words))
    for part, f in flips.items():
        if f.accuracy is None or f.accuracy_fp32 is None or f.loss_high is None:
            continue
        words = (
            f"accuracy on {part} images goes from {100 * f.accuracy_fp32:.2f} % to {100 * f.accuracy:.2f} % (at most "
            f"{100 * f.loss_high:.2f} points are lost with 95 % confidence, by {f.images} images), "
            f"{100 * limits.accuracy:g} points may be lost"
        )
        checks.append(check(f"accuracy, {part}", f.loss_high, limits.accuracy, words))
    return checks


def share_bounds(events: NDArray[Any]) -> tuple[float, float]:
    """Bounds (one-sided, 95 % each) of the share of ``events`` ``[images, noises]``, in [0, 1] each, by image.

    The noises of one image tell of that image, and not of others: what is independent is the share of each image. Their
    sum is taken for a count of images, rounded away from the middle, and bounded by Clopper and Pearson: a share
    between 0 and 1 scatters no more than an event of that probability.
    """
    total, count = float(events.mean(axis=1).sum()), len(events)
    low = clopper_pearson(math.floor(total + 1e-9), count, confidence=0.9)[0]
    return low, clopper_pearson(math.ceil(total - 1e-9), count, confidence=0.9)[1]
