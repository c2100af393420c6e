"""`evaluate`: attack presets of a bundle through its twin, let the deployed engine answer, and count."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch

from edgepure.bundle.bundle import Bundle
from edgepure.errors import ConfigError, ProviderError
from edgepure.images.dataset import LabelledImages, load_labelled
from edgepure.machine.energy import joules, spent
from edgepure.report.environment import environment
from edgepure.types import Float32, Progress
from edgepure_export.twin.reference import TorchReference

from ..data_checks import check_images, check_labels
from ..progress import Meter
from ..provider import ProviderSettings
from ..work import bundle_key, open_work
from .farm import OnRay, Orders, farm
from .lines import work_to_do
from .memory import attack_memory
from .noise_experiment import PolicyResult
from .results import Evaluated
from .runner import Runner
from .settings import USUAL_IMAGES, EvaluateSettings
from .targets import targets_of


def evaluate(
    bundle: str | PathLike[str],
    data: str | PathLike[str] | LabelledImages,
    presets: Sequence[str] | None = None,
    settings: EvaluateSettings | None = None,
    *,
    provider: ProviderSettings | None = None,
    device: str = "cpu",
    checkpointing: bool = True,
    twin: TorchReference | None = None,
    work: str | PathLike[str] | None = None,
    ray: OnRay | None = None,
    on_progress: Progress | None = None,
) -> Evaluated:
    """Attack presets of a bundle and count what is still decided right.

    Gradients come from the bundle's differentiable twin; everything that is counted was answered by the deployed
    engine, with noise that no attacker has seen.

    Args:
        bundle: its directory.
        data: labelled images, or where they are (see `edgepure.images.dataset`).
        presets: names; None: the bundle's default.
        settings: attacks and decisions.
        provider: what runs the deployed graphs.
        device: of the twin, for example ``cuda``.
        checkpointing: compute rows again in the backward pass: needed for large models, and slower.
        twin: use this one instead of the bundle's own graphs (the same network in PyTorch).
        work: folder for finished parts: the same evaluation goes on there. None: none are kept.
        ray: the cluster whose workers compute the attacks; None: they are computed here.
        on_progress: called with (share of the work that is done, what is going on).

    Raises:
        ImageError, ConfigError: images, presets or settings are unfit.
        BundleError, ProviderError: as `edgepure.load`; or PyTorch does not have the device.
        EdgepureError: something else is at work in the folder.
    """
    if ray is not None and twin is not None:
        raise ConfigError("workers make the twin of the bundle themselves; leave out twin, or ray", code="E-ray-option")
    settings, runs_on = settings or EvaluateSettings(), provider or ProviderSettings()
    started, before = perf_counter(), joules()
    _check_device(device)
    opened = Bundle.open(bundle)
    opened.manifest.require_classifier("an evaluation in labels")
    images, drawn, others = _images(opened, data, settings)
    key = bundle_key(opened.manifest, runs_on.precision)
    folder = None if work is None else Path(work)  # its files are whole: several runs may add some
    with (
        runs_on.open(opened) as purifier,
        open_work(folder, {"bundle": key, "data": images.sha256}, shared=True) as store,
    ):
        how: dict[str, Any] = {"device": device, "checkpointing": checkpointing}
        targets, simple = targets_of(purifier, presets, settings.baselines, others, twin=twin, **how)
        meter = Meter(work_to_do([*targets, *simple], settings, len(images)), on_progress)
        judge = runs_on.key(opened.manifest)
        named = None if presets is None else tuple(presets)
        orders = Orders(opened.path.resolve(), key, images, others, named, settings, runs_on, **how)
        with farm(ray, orders) as spread:
            runner = Runner(images, drawn, settings, store, judge, meter, spread)
            found = tuple(runner.preset(target) for target in targets)
            baselines = tuple(runner.preset(target) for target in simple)
        crossed = runner.crossed(targets, found) if settings.cross else ()
        experiments: dict[str, dict[str, tuple[PolicyResult, ...]]] = {}
        if settings.noise_policy:
            experiments["noise_policy"] = {t.name: runner.noise_policy(t) for t in targets}
        facts: dict[str, Any] = {
            **environment(runs_on.provider),
            "torch": str(torch.__version__),
            "engine": f"{runs_on.provider}, {runs_on.precision}",
            "twin": _twin_words(twin, device, checkpointing),
            "noise seed of the judging": runner.noise_seed,
            "seconds": round(perf_counter() - started, 1),
        }
        if (used := spent(before)) is not None:
            facts["joules of the GPUs here"] = round(used)
        # Counting keeps a row's activations, which for a large network are more than all the rest takes.
        if any(attack.through_rows for attack in settings.chosen()):
            facts["memory of an attack, derived"] = {t.name: attack_memory(t).to_dict() for t in targets}
    return Evaluated(
        bundle=opened.manifest.name,
        bundle_sha256=key,
        presets=found,
        images=images.images,
        labels=runner.labels,
        classes=tuple(opened.manifest.classes),
        settings=settings,
        facts=facts,
        all_presets=tuple(opened.manifest.presets),
        experiments=experiments,
        baselines=baselines,
        crossed=crossed,
    )


def _check_device(device: str) -> None:
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        first = (str(error).splitlines() or ["no reason given"])[0]
        raise ProviderError(
            f"PyTorch cannot compute gradients on {device!r} here ({first}); give cpu", code="E-provider-torch"
        ) from None


def _images(opened: Bundle, data: Any, settings: EvaluateSettings) -> tuple[LabelledImages, str, Float32]:
    """The images, how they were chosen, and those that were not."""
    manifest = opened.manifest
    if not isinstance(data, LabelledImages):
        data = load_labelled(data, manifest.image, manifest.classes, need_labels=True)
    check_images(data, "the data", fewest=2)
    count = settings.images if settings.images is not None else min(len(data), USUAL_IMAGES)
    taken: LabelledImages = data.take(count, settings.subset_seed)
    check_labels(taken, "the data")
    if count == len(data):
        return taken, f"all {count} images of the data", data.images[:0]
    chosen = {image.tobytes() for image in taken.images}
    others = np.stack([image for image in data.images if image.tobytes() not in chosen])
    words = f"{count} of {len(data)} images, drawn with seed {settings.subset_seed}, classes in proportion"
    return taken, words, others


def _twin_words(twin: TorchReference | None, device: str, checkpointing: bool) -> str:
    made = "the bundle's graphs in PyTorch" if twin is None else "the same networks in PyTorch"
    kept = checkpointing if twin is None else twin.checkpointing
    return f"{made} on {device}, " + ("rows computed again in the backward pass" if kept else "all activations kept")
