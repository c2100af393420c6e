"""Judging a variant by labels: how many decisions it flips beside those that new noise flips, and how many right ones
it loses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgepure.images.dataset import LabelledImages
from edgepure.methods.presets import Preset
from edgepure.purify.purifier import Purifier
from edgepure.types import Float32, Progress

from ..bounds import mean_high
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
    flips, redraws = mine != theirs, theirs != np.roll(theirs, 1, axis=1)
    counted = Flips(
        images=len(mine),
        decisions=mine.size,
        flipped=int(flips.sum()),
        high=mean_high(flips),
        redrawn=int(redraws.sum()),
        beyond_high=mean_high(flips.mean(axis=1) - redraws.mean(axis=1)),
    )
    if truth is None:
        return counted
    right, right_fp32 = (answers == truth[:, None] for answers in (mine, theirs))
    return replace(
        counted,
        accuracy=float(right.mean()),
        accuracy_fp32=float(right_fp32.mean()),
        loss_high=mean_high(right_fp32.mean(axis=1) - right.mean(axis=1)),
    )


def decision_checks(flips: Mapping[str, Flips], limits: Limits) -> list[Check]:
    """The gate in decisions: how many flip, and how many of the right ones are lost, by data set."""
    checks = []
    for part, f in flips.items():
        words = (
            f"it flips {f.flipped} of {f.decisions} decisions on {part} images, new noise {f.redrawn} "
            f"({beyond(f.beyond_high)} than that with 95 % confidence, by {f.images} images); "
            f"{100 * limits.flips:g} points more are allowed"
        )
        checks.append(check(f"flips, {part}", f.beyond_high, limits.flips, words))
    for part, f in flips.items():
        if f.accuracy is None or f.accuracy_fp32 is None or f.loss_high is None:
            continue
        checks.append(loss_check("accuracy", part, f.accuracy_fp32, f.accuracy, f.loss_high, f.images, limits))
    return checks


def loss_check(
    metric: str, part: str, fp32: float, lower: float, loss_high: float, images: int, limits: Limits
) -> Check:
    """How much of a metric is lost in the lower precision, at most with 95 % confidence."""
    words = (
        f"{metric} on {part} images goes from {100 * fp32:.2f} % to {100 * lower:.2f} % (at most {100 * loss_high:.2f} "
        f"points are lost with 95 % confidence, by {images} images), {100 * limits.accuracy:g} points may be lost"
    )
    return check(f"{metric}, {part}", loss_high, limits.accuracy, words)


def beyond(high: float) -> str:
    """An upper bound of a difference of two shares, in words."""
    return f"at most {100 * high:.2f} points more" if high >= 0.0 else f"at least {-100 * high:.2f} points less"
