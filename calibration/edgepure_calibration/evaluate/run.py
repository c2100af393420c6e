"""`evaluate`: attack presets of a bundle through its twin, let the deployed engine answer, and count."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from os import PathLike
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgepure import Preset, Purifier
from edgepure.bundle.bundle import Bundle
from edgepure.errors import ProviderError
from edgepure.files.locks import work_folder
from edgepure.images.dataset import LabelledImages, load_labelled
from edgepure.report.environment import environment
from edgepure_export.twin.reference import TorchReference
from edgepure_export.twin.twin import load_twin

from ..attack_revision import ATTACK_REVISION
from ..data_checks import check_images, check_labels
from . import attack_list
from .agreement import agreement
from .attack_list import Line, Target, derived_seed
from .draws import Draws, draw, rules
from .memory import attack_memory
from .meter import Meter, OnProgress
from .noise_experiment import PolicyResult, noise_policy
from .protocol import Accuracy, Protocol, Rule, digest
from .protocols import clean_protocol, protocol, union_protocol
from .results import AttackResult, Evaluation, PresetResult
from .settings import THROUGH_ROWS, USUAL_IMAGES, Settings
from .store import Store, bundle_key
from .union import union

Float32 = NDArray[np.float32]
Labels = NDArray[np.int64]


def evaluate(
    bundle: str | PathLike[str],
    data: str | PathLike[str] | LabelledImages,
    presets: Sequence[str] | None = None,
    settings: Settings | None = None,
    *,
    clean_only: bool = False,
    with_noise_policy: bool = False,
    provider: str = "cpu",
    precision: str = "fp32",
    threads: int | None = None,
    slots: int = 32,
    device: str = "cpu",
    checkpointing: bool = True,
    twin: TorchReference | None = None,
    work: str | PathLike[str] | None = None,
    resize: bool = False,
    on_progress: OnProgress | None = None,
) -> Evaluation:
    """Attack presets of a bundle and count what is still decided right.

    Gradients come from the bundle's differentiable twin; everything that is counted was answered by the deployed
    engine, with noise that no attacker has seen.

    Args:
        bundle: its directory.
        data: labelled images, or where they are (see `edgepure.images.dataset`).
        presets: names; None: the bundle's default.
        settings: attacks and decisions.
        clean_only: attack nothing; the settings' attacks are left out.
        with_noise_policy: run the experiment of `edgepure_calibration.evaluate.noise_experiment` too, on each preset.
        provider, precision, threads, slots: of the engine, as in `edgepure.load`.
        device: of the twin, for example ``cuda``.
        checkpointing: compute rows again in the backward pass: needed for large models, and slower.
        twin: use this one instead of the bundle's own graphs (the same network in PyTorch).
        work: folder for finished parts: the same evaluation goes on there. None: none are kept.
        resize: resize images of another size instead of refusing them.
        on_progress: called with (share of the work that is done, what is going on).

    Raises:
        ImageError, ConfigError: images, presets or settings are unfit.
        BundleError, ProviderError: as `edgepure.load`; or PyTorch does not have the device.
        EdgepureError: something else is at work in the folder.
    """
    settings = settings or Settings()
    report = on_progress or (lambda share, what: None)
    started = perf_counter()
    _check_device(device)
    opened = Bundle.open(bundle)
    images, drawn = _images(opened, data, settings, resize)
    with Purifier(opened, provider, precision=precision, threads=threads, slots=slots) as purifier, ExitStack() as held:
        names = list(presets) if presets else [opened.manifest.default_preset]
        chosen = [(name, purifier.preset(name)) for name in dict.fromkeys(names)]
        made = twin or load_twin(opened, precision=precision, device=device, checkpointing=checkpointing)
        for network in made.networks:
            network.requires_grad_(False)
        targets = [Target(name, preset, purifier, made, device) for name, preset in chosen]
        key = bundle_key(opened.manifest, precision)
        if work is not None:  # its files are whole and named by what made them: several runs may add some
            held.enter_context(work_folder(Path(work), shared=True))
        store = Store(
            None if work is None else Path(work), {"bundle": key, "data": images.sha256, "attacks": ATTACK_REVISION}
        )
        meter = Meter(targets, settings, len(images), report, with_noise_policy, clean_only)
        runner = _Runner(images, drawn, settings, store, key, meter, clean_only)
        found = tuple(runner.preset(target) for target in targets)
        experiments: dict[str, dict[str, tuple[PolicyResult, ...]]] = {}
        if with_noise_policy:
            experiments["noise_policy"] = {t.name: runner.noise_policy(t) for t in targets}
        facts: dict[str, Any] = {
            **environment(provider),
            "torch": str(torch.__version__),
            "engine": f"{provider}, {precision}",
            "twin": _twin_words(twin, device, checkpointing),
            "noise seed of the judging": runner.noise_seed,
            "seconds": round(perf_counter() - started, 1),
        }
        # Counting keeps a row's activations, which for a large network are more than all the rest takes.
        if not clean_only and THROUGH_ROWS & set(settings.attacks):
            facts["memory of an attack, derived"] = {t.name: attack_memory(t).to_dict() for t in targets}
    return Evaluation(
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
    )


class _Runner:
    """Presets, one after another: clean images, then every attack, batch by batch, each finished part kept."""

    def __init__(
        self, data: LabelledImages, drawn: str, settings: Settings, store: Store, key: str, meter: Meter,
        clean_only: bool,
    ) -> None:  # fmt: skip
        self._drawn, self._clean_only = drawn, clean_only
        assert data.labels is not None
        self.images, self.labels = data.images, data.labels
        self._data, self._settings, self._store, self._key, self._meter = data, settings, store, key, meter
        self.noise_seed = self._noise_seed()

    def votes(self, preset: Preset) -> int:
        """K of the majority."""
        return self._settings.votes or preset.votes.count

    def preset(self, target: Target) -> PresetResult:
        settings = self._settings
        common = self._common(target)
        clean, (answers,) = self._judged(target, clean_protocol({**common, "seeds": (0,)}), [self.images])
        attacks: list[AttackResult] = []
        counted: dict[Protocol, list[Draws]] = {}
        for line in [] if self._clean_only else attack_list.lines(target, settings):
            made = protocol(line, target, settings, common)
            adversarial = [self._attacked(target, line, made, seed) for seed in settings.seeds]
            judged, drawn = self._judged(target, made, adversarial)
            if not made.surrogate:
                counted[made] = drawn
            same = agreement(target, adversarial[0], derived_seed(self.noise_seed, "agreement"), settings.batch)
            attacks.append(replace(judged, agreement=same, images=adversarial[0]))
        rights: tuple[Accuracy, ...] = ()
        if len(counted) > 1:
            decisions = rules(self.votes(target.preset), self._settings.worst)
            rights = union(union_protocol(list(counted)), decisions, answers, list(counted.values()))
        return PresetResult(target.name, target.preset, target.calls, clean, tuple(attacks), rights)

    def noise_policy(self, target: Target) -> tuple[PolicyResult, ...]:
        """The experiment on noise policies."""
        settings = replace(self._settings, votes=self.votes(target.preset))
        seeds = (derived_seed(self.noise_seed, "noise policy"), derived_seed(self.noise_seed, "deployed stream"))
        return noise_policy(target, self._data, settings, self._store, self._common(target), seeds, self._meter.spend)

    def _attacked(self, target: Target, line: Line, made: Protocol, seed: int) -> Float32:
        """The images as one seed of an attack leaves them."""
        parts = []
        # Not the whole protocol: one more seed changes no image, another engine only those of Square, and the
        # transferred ones serve every preset.
        same = replace(made, seeds=(seed,), noise="any", judge=made.judge if line.attack == "square" else "any")
        if line.attack == "transfer":
            same = replace(same, preset="any", preset_sha256="any")
        what = {"what": "attack", "protocol": same.key, "selection": self._settings.selection,
                "batch": self._settings.batch, "copies": self._settings.copies}  # fmt: skip
        for first in range(0, len(self.images), self._settings.batch):
            part = slice(first, first + self._settings.batch)
            images, labels = self.images[part], self.labels[part]

            def make(images: Float32 = images, labels: Labels = labels, first: int = first) -> dict[str, Any]:
                begun = derived_seed(seed, "batch", first)
                moved = attack_list.attack(
                    line, target, self._settings, images, labels, begun,
                    lambda share: self._meter.show(line, target, share * len(images)),
                )  # fmt: skip
                return {"images": moved}

            parts.append(self._store.part({**what, "first": first}, make)["images"])
            self._meter.add(line, target, len(images))
        return np.concatenate(parts)

    def _judged(self, target: Target, made: Protocol, versions: Sequence[Float32]) -> tuple[AttackResult, list[Draws]]:
        """What the rules make of the deployed engine's answers on the images of every seed, and those answers."""
        found, plain = [], []
        for seed, images in zip(made.seeds, versions, strict=True):
            label = f"{target.name} {made.attack} {made.mask_gradient} {seed}"
            found.append(self._draws(target, images, label))
            plain.append(int((target.purifier.logits(images).argmax(1) == self.labels).sum()))
        accuracies = tuple(
            Accuracy(made, rule, tuple(int(d.right(rule).sum()) for d in found), len(self.labels))
            for rule in rules(self.votes(target.preset), self._settings.worst)
        )
        alone = replace(made, noise="none: the classifier alone answers", preset="none", preset_sha256="none")
        result = AttackResult(
            accuracies=accuracies,
            resubmission=tuple(float(v) for v in np.mean([d.resubmission() for d in found], axis=0)),
            unet_calls=float(np.mean([d.unet_calls for d in found])),
            plain=Accuracy(alone, Rule("single"), tuple(plain), len(self.labels)),
        )
        return result, found

    def _draws(self, target: Target, images: Float32, label: str) -> Draws:
        count, logs, calls = max(self.votes(target.preset), self._settings.worst), [], []
        for first in range(0, len(images), self._settings.batch):
            part = images[first : first + self._settings.batch]
            noise = derived_seed(self.noise_seed, "judge", label, first, bits=62)

            def make(part: Float32 = part, noise: int = noise) -> dict[str, Any]:
                found, unet_calls = draw(target.purifier, target.preset, part, count, noise)
                return {"log_probabilities": found, "unet_calls": np.array(unet_calls)}

            what = {"what": "draws", "images": digest({"sha": _hash(part)}), "noise": noise, "count": count,
                    "preset": target.preset.model_dump_json(), "judge": target.purifier.provider}  # fmt: skip
            kept = self._store.part(what, make)
            logs.append(kept["log_probabilities"])
            calls.append(float(kept["unet_calls"]) * len(part))
            self._meter.drawn(target, count * len(part))
        return Draws(np.concatenate(logs, axis=1), self.labels, sum(calls) / len(images))

    def _noise_seed(self) -> int:
        if self._settings.noise_seed is not None:
            return self._settings.noise_seed
        kept = self._store.part({"what": "noise seed"}, lambda: {"seed": np.array(secrets.randbits(62), np.uint64)})
        return int(kept["seed"])

    def _common(self, target: Target) -> dict[str, Any]:
        """What all protocols of a preset share."""
        purifier = target.purifier
        secret = self._settings.noise_seed is None
        return {
            "twin": "the PyTorch twin of the bundle" + _straight_through(purifier.precision),
            "judge": f"the deployed graphs on {purifier.provider}, {purifier.precision}",
            "noise": ("secret and" if secret else f"of seed {self._settings.noise_seed},")
            + " fresh for every answer; the attacker draws his own",
            "preset": target.name,
            "preset_sha256": digest({"preset": target.preset.model_dump(mode="json", exclude={"description"})}),
            "bundle_sha256": self._key,
            "images": self._drawn,
            "data_sha256": self._data.sha256,
            "seeds": self._settings.seeds,
        }  # fmt: skip


def _check_device(device: str) -> None:
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        first = (str(error).splitlines() or ["no reason given"])[0]
        raise ProviderError(f"PyTorch cannot compute gradients on {device!r} here ({first}); give cpu") from None


def _images(opened: Bundle, data: Any, settings: Settings, resize: bool) -> tuple[LabelledImages, str]:
    """The images, and how they were chosen."""
    manifest = opened.manifest
    if not isinstance(data, LabelledImages):
        data = load_labelled(data, manifest.image, manifest.classes, need_labels=True, resize=resize)
    check_images(data, "the data", fewest=2)
    count = settings.images if settings.images is not None else min(len(data), USUAL_IMAGES)
    taken: LabelledImages = data.take(count, settings.subset_seed)
    check_labels(taken, "the data")
    if count == len(data):
        return taken, f"all {count} images of the data"
    return taken, f"{count} of {len(data)} images, drawn with seed {settings.subset_seed}, classes in proportion"


def _straight_through(precision: str) -> str:
    """What the gradient of a twin of few bits is."""
    if precision == "fp32":
        return ""
    return f" in {precision}" + (" (rounding has the gradient of the identity)" if precision in ("int8", "fp8") else "")


def _hash(images: Float32) -> str:
    return LabelledImages(images, None, ()).sha256


def _twin_words(twin: TorchReference | None, device: str, checkpointing: bool) -> str:
    made = "the bundle's graphs in PyTorch" if twin is None else "the same networks in PyTorch"
    kept = checkpointing if twin is None else twin.checkpointing
    return f"{made} on {device}, " + ("rows computed again in the backward pass" if kept else "all activations kept")
