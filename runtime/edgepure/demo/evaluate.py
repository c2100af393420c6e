"""Purify and classify labelled images, clean and attacked, with presets of a bundle; count, and show pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..methods.presets import Preset
from ..purify.purifier import Purifier
from ..purify.results import Result
from ..purify.scores import Score
from ..report.pictures import Picture
from ..types import Float32, Progress
from .report import Gallery, MethodScores

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class ScoredRun:
    """One preset on one set of labelled images."""

    results: tuple[Result, ...] = field(repr=False)
    score: Score
    seconds: float


def evaluate(
    purifier: Purifier,
    images: Float32,
    labels: Labels,
    preset: str | Preset | Mapping[str, Any],
    *,
    seed: int,
    votes: int | None = None,
    on_progress: Progress | None = None,
) -> ScoredRun:
    """Purify and classify ``images`` (``[N, C, H, W]`` float32 in [0, 1]) and compare with ``labels`` (``[N]``).

    ``seed`` makes the numbers repeatable; a service that answers strangers leaves the noise secret.
    """
    start = perf_counter()
    results = purifier.run(images, preset, votes=votes, noise=seed, on_progress=on_progress)
    seconds = perf_counter() - start
    return ScoredRun(tuple(results), Score.of_results(results, [int(n) for n in labels]), seconds)


@dataclass(frozen=True)
class MethodRun:
    """One preset on the clean images and on their attacked versions."""

    clean: ScoredRun
    attacked: ScoredRun

    def scores(self, purifier: Purifier, name: str, whitebox: Score | None = None) -> MethodScores:
        """The line of the accuracy table."""
        preset = purifier.preset(name)
        probe = purifier.planner.probe(preset)
        probed = probe.unet_calls if probe is not None else 0
        results = (*self.clean.results, *self.attacked.results)
        decision = float(np.mean([r.unet_calls for r in results]))
        return MethodScores(
            name=name,
            description=preset.description,
            unet_calls=probed + (decision - probed) / preset.votes.count,
            unet_calls_decision=decision,
            ms_per_image=1000.0 * (self.clean.seconds + self.attacked.seconds) / len(results),
            clean=self.clean.score,
            attacked=self.attacked.score,
            whitebox=whitebox,
        )


def evaluate_methods(
    purifier: Purifier,
    names: list[str],
    clean: Float32,
    attacked: Float32,
    labels: Labels,
    *,
    seed: int,
    on_progress: Progress | None = None,
) -> dict[str, MethodRun]:
    """Every named preset on clean and attacked images, ``[N, C, H, W]`` float32 in [0, 1]."""
    runs: dict[str, MethodRun] = {}
    rounds = [(name, shift) for name in names for shift in (0, 1)]
    done: list[ScoredRun] = []
    for number, (name, shift) in enumerate(rounds):

        def progress(share: float, _: str, *, what: str = name, before: int = number) -> None:
            if on_progress is not None:
                on_progress((before + share) / len(rounds), what)

        images = attacked if shift else clean
        done.append(evaluate(purifier, images, labels, name, seed=seed + shift, on_progress=progress))
        if shift:
            runs[name] = MethodRun(clean=done[-2], attacked=done[-1])
    return runs


def default_first(purifier: Purifier) -> list[str]:
    """The presets of a bundle, the default one first, then by name."""
    default = purifier.bundle.manifest.default_preset
    return [default, *sorted(name for name in purifier.presets if name != default)]


def plain_labels(purifier: Purifier, images: Float32) -> Labels:
    """What the classifier says of ``images`` without purification: ``[N]`` int64."""
    return np.asarray(purifier.logits(images).argmax(axis=1), dtype=np.int64)


def plan_rows(purifier: Purifier, name: str) -> list[dict[str, Any]]:
    """The plan of a preset for the report: stage, timestep of the UNet call, level that it leads to."""
    return [{"stage": row.stage, "t": row.t, "to": row.next_level} for row in purifier.plan(name).rows]


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
