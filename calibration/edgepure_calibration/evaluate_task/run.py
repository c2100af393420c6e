"""Evaluate a task under attack: images attacked on the task alone and through each preset, answered by the engine."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from os import PathLike
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgepure.bundle.bundle import Bundle
from edgepure.errors import ConfigError
from edgepure.methods.presets import Preset
from edgepure.purify.masks import check_mask_use
from edgepure.purify.purifier import Purifier
from edgepure.report.environment import environment
from edgepure.rows.noise import SeededNoise
from edgepure.types import Float32, Progress
from edgepure_export.twin.frames import purify_frames
from edgepure_export.twin.reference import TorchReference
from edgepure_export.twin.twin import load_twin

from ..provider import ProviderSettings
from ..truth.data import Truth, check_something_counts, checked, load_truth
from ..truth.metrics import Gallery, Score, counted, score_of
from ..work import bundle_key
from .attack import TaskAttack
from .losses import Loss, default_loss

#: Images that are attacked at a time.
BATCH = 16
#: Images whose answers are kept for people to look at.
SHOWN = 4


@dataclass(frozen=True)
class Row:
    """One defence: a preset, or none.

    Attributes:
        preset: its name; None: the task alone.
        seen: of the first images what was answered to the attacked ones: label maps, `Boxes` or vectors, and what the
            task was shown then, ``[C, H, W]`` each.
        unet_calls: of one answer.
        clean, transferred, attacked: scores on clean images, on those that were attacked on the task alone, and on
            those that were attacked through this defence.
    """

    preset: str | None
    unet_calls: int
    clean: Score
    transferred: Score
    attacked: Score
    seen: tuple[tuple[Any, Float32], ...] = field(default=(), repr=False, compare=False)

    @property
    def left(self) -> Score:
        """What the worse of the two attacks leaves: whoever attacks may try both."""
        return min(self.transferred, self.attacked, key=lambda score: score.value)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, without what was seen."""
        scores = {name: getattr(self, name).to_dict() for name in ("clean", "transferred", "attacked")}
        return {"preset": self.preset, "unet_calls": self.unet_calls, **scores}


@dataclass(frozen=True)
class TaskEvaluated:
    """What `evaluate_task` found.

    Attributes:
        bundle, kind: which task.
        rows: the task alone first, then each preset.
        protocol: how the images were attacked and answered, for people.
        attack: likewise, as data.
        facts: date, versions, machine.
        bundle_sha256: of graphs and weights (`edgepure_calibration.work.bundle_key`).
        all_presets: of the bundle.
        truth: what was counted against.
        images: attacked images by ``plain`` and preset, ``[N, C, H, W]``.
    """

    bundle: str
    kind: str
    rows: tuple[Row, ...]
    protocol: tuple[str, ...]
    attack: TaskAttack
    facts: Mapping[str, str]
    bundle_sha256: str
    all_presets: tuple[str, ...]
    truth: Truth = field(repr=False)
    images: Mapping[str, Float32] = field(repr=False)

    def not_tested(self) -> list[str]:
        """What a reader might believe was tested."""
        return untested(self.all_presets, {row.preset for row in self.rows}, [self.attack.bounded])

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, without the images."""
        return {
            "bundle": self.bundle,
            "task": self.kind,
            "rows": [row.to_dict() for row in self.rows],
            "protocol": list(self.protocol),
            "attack": asdict(self.attack),
            "not_tested": self.not_tested(),
            "facts": dict(self.facts),
            "bundle_sha256": self.bundle_sha256,
            "data_sha256": self.truth.sha256,
        }


def untested(presets: Iterable[str], tested: Container[str | None], bounds: Sequence[str]) -> list[str]:
    """What a reader of these evaluations might believe was tested."""
    rest = [name for name in presets if name not in tested]
    return [
        *([f"presets {', '.join(rest)}"] if rest else []),
        "other attacks than PGD on this loss, with the steps and noises of the protocol: more of them, restarts, other "
        "losses, attacks without gradients",
        f"what lies outside of this: {'; '.join(bounds)}; blur, rotations and physical objects",
        "a gradient through the mask and the SSNI level, which are detached",
    ]


def evaluate_task(
    bundle: str | PathLike[str] | Bundle,
    data: str | PathLike[str] | Truth,
    presets: Sequence[str] | None = None,
    *,
    attack: TaskAttack | None = None,
    loss: Loss | None = None,
    images: int | None = None,
    votes: int | None = None,
    noise_seed: int | None = None,
    provider: ProviderSettings | None = None,
    on_progress: Progress | None = None,
) -> TaskEvaluated:
    """Attack a bundle's task by the exact gradients of its twin, and count what the engine still gets right.

    Args:
        bundle: with a task.
        data: images with their truth, or an ``.npz`` (`load_truth`).
        presets: to attack through; None: the bundle's default.
        attack: how; None: `TaskAttack` as it is.
        loss: what the attack maximises; None: that of the task (`default_loss`).
        images: how many of the data, from the first on; None: all.
        votes: of each answer; None: as the presets say.
        noise_seed: of the engine's noise, to repeat a run; None: secret.
        provider: what answers.
        on_progress: called with the share of the attacks' steps, and words.

    Raises:
        ConfigError: the bundle has no task, data or loss do not fit it, or a preset is unknown or takes the caller's
            mask.
        ImageError, BundleError, ProviderError: as `edgepure.load`.
    """
    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    task = opened.manifest.require_task()
    chosen, way, runs_on = loss or default_loss(task.kind), attack or TaskAttack(), provider or ProviderSettings()
    with runs_on.open(opened) as purifier:
        truth = checked(data, opened.manifest) if isinstance(data, Truth) else load_truth(data, purifier)
        if images is not None:
            if not 1 <= images <= len(truth):
                raise ConfigError(
                    f"{images} images were asked for, but the data hold {len(truth)}", code="E-config-count"
                )
            truth = truth.pick(range(images))
        check_something_counts(truth, task.kind)
        named = {name: purifier.preset(name, votes) for name in presets or (opened.manifest.default_preset,)}
        for preset in named.values():  # before anything is attacked
            purifier.task_head().check(preset)
            check_mask_use(preset, given=False)
        twin = load_twin(opened, precision=runs_on.precision)
        for network in twin.networks:
            network.requires_grad_(False)
        judge = _Judge(purifier, truth, noise_seed)
        meter = _Meter(way.steps * (1 + len(named)) * -(-len(truth) // BATCH), on_progress)
        attacked = {"plain": _attacked(twin, purifier, truth, chosen, way, None, meter)}
        clean = judge.score(truth.images, None)
        plain = judge.score(attacked["plain"], None)
        rows = [Row(None, 0, clean, plain, plain, judge.seen)]
        for name, preset in named.items():
            attacked[name] = _attacked(twin, purifier, truth, chosen, way, preset, meter)
            calls = purifier.graphs.unet_calls(preset)
            before, transferred, through = (
                judge.score(x, preset) for x in (truth.images, attacked["plain"], attacked[name])
            )
            rows.append(Row(name, calls, before, transferred, through, judge.seen))
    own = "the task's own answers to the clean images" if truth.own else "the labels of the data"
    protocol = (
        f"PGD, {way.bounded}, {way.steps} steps of {way.step:.3g}, random start, EOT "
        f"{way.eot}, seed "
        f"{way.seed}; exact gradients of {'the given loss' if loss else 'the loss of the task'} through every row "
        f"and the "
        "task, mask and SSNI level detached; one adaptive attack, not a proof",
        f"answers: {runs_on.provider}, {runs_on.precision}, {'secret' if noise_seed is None else 'seeded'} noise "
        f"that the "
        "attacker does not have",
        f"truth: {own}; {len(truth)} images; intervals: 95 %, over images",
    )
    return TaskEvaluated(
        bundle=opened.manifest.name,
        kind=task.kind,
        rows=tuple(rows),
        protocol=protocol,
        attack=way,
        facts={
            **environment(runs_on.provider),
            "torch": str(torch.__version__),
            "engine": f"{runs_on.provider}, {runs_on.precision}",
        },
        bundle_sha256=bundle_key(opened.manifest, runs_on.precision),
        all_presets=tuple(opened.manifest.presets),
        truth=truth,
        images=attacked,
    )


class _Meter:
    def __init__(self, total: int, report: Progress | None) -> None:
        self._total, self._report, self._done, self.words = total, report, 0, ""

    def step(self) -> None:
        self._done += 1
        if self._report is not None:
            self._report(self._done / self._total, self.words)


def _attacked(
    twin: TorchReference,
    purifier: Purifier,
    truth: Truth,
    loss: Loss,
    way: TaskAttack,
    preset: Preset | None,
    meter: _Meter,
) -> Float32:
    meter.words = "attacking the task alone" if preset is None else "attacking through the purification"

    def answer(x: Tensor, noise: SeededNoise) -> Mapping[str, Tensor]:
        if preset is None:
            return twin.task_outputs(x)
        if twin.framed:
            return twin.task_outputs(purify_frames(twin, purifier.graphs, x, preset, noise))
        return twin.run_preset(x, preset, noise).task

    parts = []
    for first in range(0, len(truth), BATCH):
        part = truth.pick(range(first, min(first + BATCH, len(truth))))
        true = _tensors(twin, part)
        parts.append(way.run(answer, part.images, true, loss, random=preset is not None, on_step=meter.step))
    return np.concatenate(parts)


def _tensors(twin: TorchReference, truth: Truth) -> dict[str, Tensor]:
    found = {"labels": torch.from_numpy(truth.labels)}
    if truth.boxes is not None:
        found["boxes"] = torch.from_numpy(truth.boxes)
    with torch.no_grad():
        outputs = twin.task_outputs(torch.from_numpy(truth.images))
    return found | ({"vector": outputs["vector"]} if "vector" in outputs else {})


class _Judge:
    """Scores the engine's answers. ``seen``: the last ones to the first images, and what the task was shown."""

    seen: tuple[tuple[Any, Float32], ...] = ()

    def __init__(self, purifier: Purifier, truth: Truth, noise_seed: int | None) -> None:
        self._purifier, self._truth, self._seed = purifier, truth, noise_seed
        self._task = purifier.bundle.manifest.require_task()
        self._gallery: Gallery | None = None
        if self._task.kind == "embedding":
            vectors = np.stack([a.vector for a in purifier.predict(truth.images, purify=False)])
            self._gallery = Gallery(vectors, truth.labels, same=not truth.own)

    def score(self, images: Float32, preset: Preset | None) -> Score:
        """Of answers to images that a preset purifies; None: as they are."""
        if preset is None:
            answers = self._purifier.predict(images, purify=False)
        else:
            answers = self._purifier.predict(images, preset, noise=self._seed)
        self.seen = tuple((counted(answer), answer.image) for answer in answers[:SHOWN])
        return score_of(self._task, self._truth, [counted(answer) for answer in answers], self._gallery)
