"""Purify and classify labelled images, clean and attacked, with presets of a bundle, and count."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..methods.presets import Preset
from ..purify.purifier import Purifier
from ..purify.request import Progress
from ..purify.results import Result
from .report import MethodScores
from .scores import Score

Float32 = NDArray[np.float32]
Labels = NDArray[np.int64]

#: Called with (what is being done, decisions made, decisions in all).
StageProgress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Evaluation:
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
) -> Evaluation:
    """Purify and classify ``images`` (``[N, C, H, W]`` float32 in [0, 1]) and compare with ``labels`` (``[N]``).

    ``seed`` makes the numbers repeatable; a service that answers strangers leaves the noise secret.
    """
    start = perf_counter()
    results = purifier.run(images, preset, votes=votes, noise=seed, on_progress=on_progress)
    seconds = perf_counter() - start
    return Evaluation(tuple(results), Score.of_results(results, [int(n) for n in labels]), seconds)


@dataclass(frozen=True)
class MethodRun:
    """One preset on the clean images and on their attacked versions."""

    clean: Evaluation
    attacked: Evaluation

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
    on_progress: StageProgress | None = None,
) -> dict[str, MethodRun]:
    """Every named preset on clean and attacked images, ``[N, C, H, W]`` float32 in [0, 1]."""
    runs: dict[str, MethodRun] = {}
    rounds = [(name, shift) for name in names for shift in (0, 1)]
    of = len(rounds) * len(labels)
    done: list[Evaluation] = []
    for number, (name, shift) in enumerate(rounds):

        def progress(finished: int, _: int, *, what: str = name, before: int = number * len(labels)) -> None:
            if on_progress is not None:
                on_progress(what, before + finished, of)

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
