"""Tuning for certificates: the preset that certifies most images at a radius, under a budget of UNet calls.

What is counted is the certified accuracy: the share of images that are answered right and proven to stay so within the
radius. It needs no attack, and no attack can make it smaller.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from edgepure import Bundle
from edgepure.bundle.edit import edit_bundle
from edgepure.errors import ConfigError
from edgepure.images.dataset import LabelledImages
from edgepure.machine.packages import needs
from edgepure.purify.certificate import CertifySettings
from edgepure.report.environment import environment
from edgepure.types import Progress

from ..bundle_presets import put_presets
from ..data_checks import check_images, check_labels
from ..provider import ProviderSettings
from ..work import open_work
from .certified_search import CertifiedMeasuring, CertifiedSpace
from .points import Point, finalists
from .result import score_data
from .splits import FEWEST

CERTIFIED_FILE = "tuning/certified.json"


@dataclass(frozen=True)
class CertifiedSettings:
    """What to tune for, and how thoroughly.

    Attributes:
        radius: L2 on images in [0, 1], that is to be certified.
        calls: UNet calls of one answer, at most.
        trials: candidates to try in all.
        images: for the search; the finalists are measured on others.
        final_images: for the finalists; fewer if the data hold fewer.
        finalists: candidates that are measured again.
        n, final_n: answers that are counted for an image, at most: it ends when the radius is settled.
        alpha: the probability that the certificate of an image is wrong, at most.
        tolerance: how much certified accuracy ``certified-fast`` may give away, as a share of the images.
        seed: of everything that is drawn.
    """

    radius: float
    calls: int = 1
    trials: int = 30
    images: int = 50
    final_images: int = 200
    finalists: int = 4
    n: int = 1000
    final_n: int = 10_000
    alpha: float = 0.001
    tolerance: float = 0.02
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("calls", "trials", "images", "final_images", "finalists"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} {getattr(self, name)} must be at least 1", code="E-tune-count")
        if not 0.0 < self.radius < 100.0:
            raise ConfigError(f"radius {self.radius} must be above 0 to tune for it", code="E-certificate-radius")
        self.counted(self.n), self.counted(self.final_n)
        if not 0.0 <= self.tolerance < 1.0:
            raise ConfigError(
                f"tolerance {self.tolerance} must lie in [0, 1): it is a share of the images", code="E-tune-tolerance"
            )

    def counted(self, n: int) -> CertifySettings:
        """How certificates are counted with at most ``n`` answers an image."""
        return CertifySettings(n=n, alpha=self.alpha, radius=self.radius)


@dataclass(frozen=True)
class CertifiedTuning:
    """What a tuning run for certificates found. Of every point, ``attacked`` counts the certified images.

    Attributes:
        bundle: its name.
        settings: of the run.
        trials: what the search found, in order.
        finalists: measured again on other images with other noise, in order of cost.
        chosen: which finalist became which preset: ``certified``, ``certified-fast``.
        images: of the search and of the finalists.
        facts: device, versions, date.
    """

    bundle: str
    settings: CertifiedSettings
    trials: Sequence[Point] = field(repr=False)
    finalists: Sequence[Point]
    chosen: Mapping[str, Point]
    images: tuple[int, int]
    facts: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain data: the evidence, as it is stored in the bundle."""
        return {
            "bundle": self.bundle,
            "objective": "certified",
            "settings": asdict(self.settings),
            "chosen": {name: certified_data(point) for name, point in self.chosen.items()},
            "finalists": [certified_data(point) for point in self.finalists],
            "trials": [certified_data(point) for point in self.trials],
            "images": {"search": self.images[0], "finalists": self.images[1]},
            "choice": "certified: the finalist with the largest certified accuracy; certified-fast: the cheapest "
            f"within {100 * self.settings.tolerance:g} points of it. The finalists' own numbers decide, so the best of "
            "them is seen a little too well",
            "facts": dict(self.facts),
        }


def certified_data(point: Point) -> dict[str, Any]:
    """A point as plain data: shares with counts and 95 % Clopper-Pearson intervals."""
    assert point.attacked is not None
    return {
        "summary": point.candidate.summary(),
        "preset": point.candidate.preset.model_dump(mode="json"),
        "unet_calls": point.calls,
        "certified": score_data(point.attacked),
        "right": score_data(point.clean),
        "trial": point.number if point.number >= 0 else None,
    }


def tune_certified(
    bundle: str | PathLike[str],
    data: LabelledImages,
    settings: CertifiedSettings,
    *,
    test: LabelledImages | None = None,
    provider: ProviderSettings | None = None,
    eight_bits: bool = False,
    work: str | PathLike[str] | None = None,
    write: bool = True,
    on_progress: Progress | None = None,
) -> CertifiedTuning:
    """Search certified presets for a bundle, and put the best into it as ``certified`` and ``certified-fast``.

    Args:
        bundle: its directory.
        data: labelled images; a part is searched on, others measure the finalists.
        settings: radius, budget, sizes and seeds.
        test: images for the finalists; None: those of ``data`` that the search does not see.
        provider: what runs the deployed graphs.
        eight_bits: round images to 8 bits first: certificates are exact then.
        work: folder of the trials; None: a hidden one beside the bundle. The same call goes on with it.
        write: put the presets and ``tuning/certified.json`` into the bundle, as a whole or not at all.
        on_progress: called with (share of the work that is done, what is being done).

    Raises:
        ConfigError: no noise can prove the radius, no candidate certifies an image, or data that cannot serve.
        BundleError, ProviderError, EdgepureError: as `tune`.
    """
    report: Progress = on_progress or (lambda share, words: None)
    runs_on, opened = provider or ProviderSettings(), Bundle.open(bundle)
    opened.manifest.require_classifier("tuning, which counts labels that are right,")
    first, second = _splits(data, test, settings, eight_bits)
    folder = opened.path.with_name(f".{opened.path.name}.tune") if work is None else Path(work)
    with ExitStack() as held:
        purifier = held.enter_context(runs_on.open(opened))
        masks = opened.manifest.attention is not None
        counted = settings.counted(settings.n), settings.counted(settings.final_n)
        fewer = min(counted, key=lambda how: how.n)
        space = CertifiedSpace(purifier.planner, masks, settings.radius, settings.calls, fewer)
        seeds = settings.seed * 1000 + 300, settings.seed * 1000 + 400
        search, final = (
            CertifiedMeasuring(purifier, part, how, seed)
            for part, how, seed in zip((first, second), counted, seeds, strict=True)
        )
        depends = {
            "what": "certified tuning",
            **runs_on.key(opened.manifest),
            "data": [first.sha256, second.sha256],
            "settings": asdict(replace(settings, trials=1, tolerance=0.0)),
        }
        store = held.enter_context(open_work(folder, depends))
        with needs("tuning needs Optuna", "calibration"):
            from .trials import Trials
        trials = Trials(store, settings.seed)
        points = trials.points()
        while len(points) < settings.trials:
            report(0.6 * len(points) / settings.trials, f"trial {len(points) + 1} of {settings.trials}")
            trial = trials.ask(space.starts())
            try:
                candidate = space.candidate(trial)
                known = next((p for p in points if p.candidate.key == candidate.key), None)
                point = replace(known or search.point(candidate), number=len(points))
            except BaseException:
                trials.fail(trial)
                raise
            trials.tell(trial, point)
            points.append(point)
        best = finalists(points, "robust", settings.finalists)
        again = []
        for place, point in enumerate(best):
            what = {"finalist": point.candidate.key}
            kept, words = store.recall(what), f"finalist {place + 1} of {len(best)}"
            if kept is None:
                share = lambda done, at=place: report(0.6 + 0.4 * (at + done) / len(best), words)  # noqa: B023, E731
                kept = final.point(point.candidate, point.number, share).to_dict()
                store.remember(what, kept)
            again.append(Point.from_dict(kept))
        found = CertifiedTuning(
            bundle=opened.manifest.name,
            settings=settings,
            trials=points,
            finalists=sorted(again, key=lambda p: p.cost),
            chosen=_choose(again, settings.tolerance),
            images=(len(first), len(second)),
            facts={**environment(runs_on.provider), "provider": runs_on.provider, "precision": runs_on.precision},
        )
        if write:
            _write(opened.path, found)
    report(1.0, "done")
    return found


def _choose(points: Sequence[Point], tolerance: float) -> dict[str, Point]:
    best = max(points, key=lambda p: (p.robust, -p.cost, p.clean.fraction))
    if best.robust == 0.0:
        raise ConfigError(
            "no candidate certifies a single image at this radius, so there is no preset to choose; ask for a smaller "
            "radius, allow more UNet calls (--budget-calls) or trials, or count more (--n)",
            code="E-tune-certified-none",
        )
    good = [p for p in points if p.robust >= best.robust - tolerance]
    return {"certified": best, "certified-fast": min(good, key=lambda p: (p.cost, -p.robust))}


def _write(bundle: Path, found: CertifiedTuning) -> None:
    presets = {}
    for name, point in found.chosen.items():
        text = (
            f"tuned ({name}): {100 * point.robust:.1f} % of {found.images[1]} images are certified within L2 "
            f"{found.settings.radius:g}, UNet calls {point.calls} an answer; see {CERTIFIED_FILE}"
        )
        presets[name] = point.candidate.preset.model_copy(update={"description": text})
    with edit_bundle(bundle) as edit:
        put_presets(edit, presets)
        edit.write(
            CERTIFIED_FILE, (json.dumps(found.to_dict(), indent=2, sort_keys=True, allow_nan=False) + "\n").encode()
        )


def _splits(
    data: LabelledImages, test: LabelledImages | None, settings: CertifiedSettings, eight_bits: bool
) -> tuple[LabelledImages, LabelledImages]:
    """Images of the search and of the finalists, which share none."""
    check_images(data, "the data", FEWEST if test is not None else 2 * FEWEST)
    check_labels(data, "the data")
    numbered = replace(data, names=tuple(map(str, range(len(data)))))
    most = len(data) if test is not None else len(data) // 2
    chosen = np.array([int(name) for name in numbered.take(min(settings.images, most), settings.seed).names])
    first, rest = data.pick(chosen), data.pick(np.setdiff1d(np.arange(len(data)), chosen))
    if test is not None:
        check_images(test, "the test data", FEWEST)
        check_labels(test, "the test data")
        rest = test
    second = rest.take(min(settings.final_images, len(rest)), settings.seed)
    if not eight_bits:
        return first, second
    rounded = ((np.rint(part.images.astype(np.float64) * 255.0) / 255.0).astype(np.float32) for part in (first, second))
    return replace(first, images=next(rounded)), replace(second, images=next(rounded))
