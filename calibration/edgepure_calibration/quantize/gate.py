"""The gate of a variant. It is in decisions: what counts is what the classifier says after the purification.

Every purification is repeated with other noise in fp32, too: how often that flips a decision is the measure of how much
a flip means. A variant gets the same noise as fp32, so what it flips is its own doing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgepure.errors import ConfigError, EdgepureError
from edgepure.images.dataset import LabelledImages
from edgepure.intervals import clopper_pearson
from edgepure.methods.presets import Preset
from edgepure.purify.purifier import Purifier
from edgepure.types import Float32

from .recording import follow, masks_of, planned
from .verdict import Check, Flips, Limits, PresetGate, check

#: Rows of a trajectory are compared on this many images, or on fewer if they need more memory than this.
DRIFT_IMAGES, DRIFT_BYTES = 16, 128 << 20

Labels = NDArray[np.int64]
#: Called with the share that is done.
OnShare = Callable[[float], None]


class Decisions:
    """Decisions of fp32, taken once and compared with those of every draft.

    Args:
        purifier: the fp32 bundle.
        data: images by ``clean`` and ``attacked``.
        presets: by name.
        redraws: noises that each image is purified with, at least 2.
        seed: of the noises.
        limits: the fewest images follow from them.

    Raises:
        ConfigError: too few images to show anything.
    """

    def __init__(
        self,
        purifier: Purifier,
        data: Mapping[str, LabelledImages],
        presets: Mapping[str, Preset],
        redraws: int,
        seed: int,
        limits: Limits,
    ) -> None:
        if redraws < 2:
            raise ConfigError(
                f"{redraws} noise for each image: at least 2 are needed to see what new noise changes",
                code="E-quantize-decisions",
            )
        for name, part in data.items():
            needed = limits.images_needed(part.labels is not None)
            if len(part) < needed:
                least = 1.0 - 0.05 ** (1.0 / max(len(part), 1))
                raise ConfigError(
                    f"{len(part)} {name} images are left to judge with, too few to show with 95 % confidence that at "
                    f"most {100 * limits.flips:g} % of the decisions flip and {100 * limits.accuracy:g} % are lost: "
                    f"that takes {needed}, however many noises each is judged with; give more images, or allow more "
                    f"(--max-flips {least + 0.005:.2f} --max-loss {least + 0.005:.2f})",
                    code="E-quantize-images",
                )
        self.purifier, self.data, self.presets = purifier, dict(data), dict(presets)
        self.redraws, self.seed, self.limits = redraws, seed, limits
        self._labels: dict[tuple[str, str], Labels] = {}
        self._drift: dict[str, tuple[Float32, Float32]] = {}

    def known(self) -> dict[str, list[list[int]]]:
        """The fp32 labels so far, to go on with later."""
        return {f"{preset}/{part}": labels.tolist() for (preset, part), labels in self._labels.items()}

    def remember(self, known: Mapping[str, Sequence[Sequence[int]]]) -> None:
        """Take over what `known` gave."""
        for key, labels in known.items():
            preset, _, part = key.rpartition("/")
            if preset in self.presets and part in self.data:
                self._labels[preset, part] = np.asarray(labels, np.int64)

    def cost(self, preset: str) -> int:
        """UNet calls of all decisions of a preset, once, at its full noise level."""
        probe = self.purifier.planner.probe(self.presets[preset])
        images = sum(len(part) for part in self.data.values())
        rows = self.purifier.planner.plan(self.presets[preset]).unet_calls
        return images * (self.redraws * rows + (0 if probe is None else probe.unet_calls))

    def of_fp32(self, preset: str, on_share: OnShare | None = None) -> None:
        """Take the decisions of a preset in fp32, unless they are known."""
        for part in self.data:
            if (preset, part) not in self._labels:
                self._labels[preset, part] = self._decide(self.purifier, preset, part, on_share)

    def compare(self, variant: Purifier, preset: str, on_share: OnShare | None = None) -> PresetGate:
        """Run one preset of a variant through the gate (all but its speed)."""
        self.of_fp32(preset)
        try:
            flips = {
                part: flips_of(
                    self._decide(variant, preset, part, on_share), self._labels[preset, part], self.data[part].labels
                )
                for part in self.data
            }
            drift, redraw = self._drifts(variant, preset)
        except EdgepureError as error:  # NaN or infinite values
            return PresetGate(preset, {}, (), (), (), str(error))
        checks = decision_checks(flips, self.limits)
        if redraw:
            share = drift[-1] / redraw[-1] if redraw[-1] > 0.0 else (0.0 if drift[-1] == 0.0 else math.inf)
            words = f"at its last row the trajectory is off by {drift[-1]:.3g}, {share:.2f} of what new noise changes"
            checks.append(check("drift", share, self.limits.drift, words))
        return PresetGate(preset, flips, drift, redraw, tuple(checks))

    def _decide(self, purifier: Purifier, preset: str, part: str, on_share: OnShare | None) -> Labels:
        """Labels ``[N, redraws]``: of every single purification, not of the vote."""
        images, before = self.data[part].images, 0
        for name in self.data:
            if name == part:
                break
            before += len(self.data[name])
        every = sum(len(other) for other in self.data.values())
        shown = None
        if on_share is not None:
            shown = lambda share, _: on_share((before + len(images) * share) / every)  # noqa: E731
        results = purifier.run(images, self.presets[preset], votes=self.redraws, noise=self.seed, on_progress=shown)
        return np.array([result.vote_labels for result in results], np.int64)

    def _drifts(self, variant: Purifier, preset: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Root mean square differences after each row: to fp32 with the same noise, and of fp32 with two noises."""
        spec, images = self.presets[preset], next(iter(self.data.values())).images
        group = max(planned(self.purifier, spec, images[: 4 * DRIFT_IMAGES], self.seed), key=lambda g: _length(g))
        if group.probe:
            return (), ()  # no image of these is purified
        rows = len(group.plan.rows)
        count = min(DRIFT_IMAGES, max(2, DRIFT_BYTES // (12 * rows * images[0].size)), len(group.images))
        chosen = type(group)(group.plan, group.images[:count])
        images = images[: max(chosen.images) + 1]
        masks = masks_of(self.purifier, spec, images, self.seed)

        def path(purifier: Purifier, seed: int) -> Float32:
            states = np.zeros((rows, *images.shape), np.float32)

            def keep(row: int, numbers: Sequence[int], feeds: Any, after: Float32) -> None:
                states[row, list(numbers)] = after

            follow(purifier, chosen, images, masks, seed, keep)
            return states[:, list(chosen.images)]

        if preset not in self._drift:
            self._drift[preset] = path(self.purifier, self.seed), path(self.purifier, self.seed + 1)
        first, second = self._drift[preset]
        return _rms(path(variant, self.seed) - first), _rms(second - first)


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


def share_bounds(events: NDArray[np.bool_]) -> tuple[float, float]:
    """Bounds (one-sided, 95 % each) of the share of ``events`` ``[images, noises]``, by image.

    The noises of one image tell of that image, and not of others: what is independent is the share of each image. Their
    sum is taken for a count of images, rounded away from the middle, and bounded by Clopper and Pearson: a share
    between 0 and 1 scatters no more than an event of that probability.
    """
    total, count = float(events.mean(axis=1).sum()), len(events)
    low = clopper_pearson(math.floor(total + 1e-9), count, confidence=0.9)[0]
    return low, clopper_pearson(math.ceil(total - 1e-9), count, confidence=0.9)[1]


def _length(group: Any) -> tuple[bool, int, int]:
    """Prefer purifications to probes, then the plan that most images follow."""
    return (not group.probe, len(group.images), len(group.plan.rows))


def _rms(difference: Float32) -> tuple[float, ...]:
    axes = tuple(range(1, difference.ndim))
    return tuple(float(v) for v in np.sqrt(np.square(difference, dtype=np.float64).mean(axis=axes)))
