"""Presets under attack, one after another: clean images, then every attack, batch by batch, each finished part kept."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgepure import Preset
from edgepure.images.dataset import LabelledImages
from edgepure.types import Float32

from ..attacks.attack import AttackSeeds, AttackTarget
from ..attacks.known import attack_version
from ..attacks.protocol import AttackProtocol
from ..digest import derived_seed, digest
from ..progress import Meter
from ..work import Work
from .accuracy import Accuracy, Rule
from .agreement import agreement
from .baselines import BaselineTarget
from .draws import Draws, draw, rules
from .lines import Line, lines
from .noise_experiment import PolicyResult, noise_policy
from .protocols import clean_protocol, union_protocol
from .results import AttackResult, PresetResult
from .settings import EvaluateSettings
from .union import union

Labels = NDArray[np.int64]


class Job(NamedTuple):
    """A batch of an attack: of which preset or baseline, which of its `lines`, with which seed, from which image on."""

    target: str
    line: int
    seed: int
    first: int


Spread = Callable[[Sequence[tuple[dict[str, Any], Job]]], Iterable[tuple[dict[str, Any], Float32]]]


class Runner:
    """Attacks presets and counts.

    Args:
        data: labelled images, all of which are attacked and judged.
        drawn: how they were chosen, in words.
        store: where finished parts are.
        judge: what the answers of the deployed engine depend on.
        meter: told of every finished part.
        spread: has batches of attacks computed by workers: takes what they depend on with the `Job` of each, and gives
            that and the images as they come. None: they are computed here.
    """

    def __init__(
        self,
        data: LabelledImages,
        drawn: str,
        settings: EvaluateSettings,
        store: Work,
        judge: dict[str, str],
        meter: Meter,
        spread: Spread | None = None,
    ) -> None:
        assert data.labels is not None
        self.images, self.labels = data.images, data.labels
        self._data, self._drawn, self._settings = data, drawn, settings
        self._store, self._judge, self._meter, self._spread = store, judge, meter, spread
        self.noise_seed = self._noise_seed()

    def votes(self, preset: Preset) -> int:
        """K of the majority."""
        return self._settings.votes or preset.votes.count

    def preset(self, target: AttackTarget) -> PresetResult:
        """One preset under all attacks."""
        settings = self._settings
        common = self._common(target)
        if self._spread is not None:
            self._ahead(target, common, self._spread)
        clean, (answers,) = self._judged(target, clean_protocol({**common, "seeds": (0,)}), [self.images])
        attacks: list[AttackResult] = []
        counted: dict[AttackProtocol, list[Draws]] = {}
        for line in lines(target, settings):
            made = line.attack.protocol(target, line.settings, common)
            adversarial = [self._attacked(target, line, made, seed) for seed in settings.seeds]
            judged, drawn = self._judged(target, made, adversarial)
            if not made.surrogate:
                counted[made] = drawn
            same = None
            if not isinstance(target, BaselineTarget):
                same = agreement(target, adversarial[0], derived_seed(self.noise_seed, "agreement"), settings.batch)
            attacks.append(replace(judged, agreement=same, images=adversarial[0]))
        rights: tuple[Accuracy, ...] = ()
        if len(counted) > 1:
            decisions = rules(self.votes(target.preset), self._settings.worst)
            rights = union(union_protocol(list(counted)), decisions, answers, list(counted.values()))
        return PresetResult(target.name, target.preset, target.calls, clean, tuple(attacks), rights)

    def crossed(
        self, targets: Sequence[AttackTarget], found: Sequence[PresetResult]
    ) -> tuple[tuple[str, str, AttackResult], ...]:
        """The images of each preset's strongest attack, answered by every other preset."""
        rows = []
        for source in found:
            strongest = source.worst
            for target in targets:
                if strongest is None or target.name == source.name or strongest.protocol.attack == "transfer":
                    continue
                common = self._common(target)
                made = replace(
                    strongest.protocol,
                    target=f"the preset {source.name}, another one",
                    preset=common["preset"],
                    preset_sha256=common["preset_sha256"],
                    seeds=strongest.protocol.seeds[:1],
                )
                result, _ = self._judged(target, made, [strongest.images])
                rows.append((source.name, target.name, result))
        return tuple(rows)

    def noise_policy(self, target: AttackTarget) -> tuple[PolicyResult, ...]:
        """The experiment on noise policies."""
        settings = replace(self._settings, votes=self.votes(target.preset))
        seeds = (derived_seed(self.noise_seed, "noise policy"), derived_seed(self.noise_seed, "deployed stream"))
        spent = lambda calls: self._meter.add(calls, "noise policies")  # noqa: E731
        return noise_policy(target, self._data, settings, self._store, self._common(target), seeds, spent)

    def _attacked(self, target: AttackTarget, line: Line, made: AttackProtocol, seed: int) -> Float32:
        """The images as one seed of an attack leaves them."""
        what, words, price = self._what(line, made, seed), f"{target.name}: {line.attack.name}", line.cost(target)
        parts = []
        for first in range(0, len(self.images), line.settings.batch):
            cost = len(self.images[first : first + line.settings.batch]) * price
            kept = self._store.get({**what, "first": first})
            if kept is None:

                def make(first: int = first, cost: float = cost) -> dict[str, Any]:
                    report = lambda share: self._meter.show(share * cost, words)  # noqa: E731
                    return {"images": self.attack(target, line, seed, first, report)}

                kept = self._store.part({**what, "first": first}, make)
                self._meter.add(cost, words)
            else:
                self._meter.known(cost, words)
            parts.append(kept["images"])
        return np.concatenate(parts)

    def _what(self, line: Line, made: AttackProtocol, seed: int) -> dict[str, Any]:
        """What the images of an attack depend on."""
        attack, settings = line.attack, line.settings
        # Not the whole protocol: one more seed changes no image, another engine only those of an attack that asks it,
        # and those of an attack on the plain classifier serve every preset.
        same = replace(made, seeds=(seed,), noise="any", judge=made.judge if attack.asks_engine else "any")
        if attack.on_plain:
            same = replace(same, preset="any", preset_sha256="any")
        return {
            "what": "attack",
            "protocol": same.key,
            "attack": attack_version(attack),
            "judge": self._judge if attack.asks_engine else None,
            "selection": settings.selection,
            "batch": settings.batch,
            "copies": settings.copies,
        }

    def attack(
        self, target: AttackTarget, line: Line, seed: int, first: int, report: Callable[[float], None]
    ) -> Float32:
        """One batch of images under one seed of an attack, computed here."""
        part = slice(first, first + line.settings.batch)
        seeds = AttackSeeds.derived(derived_seed(seed, "batch", first), line.settings.restarts)
        found: Float32 = line.attack.run(target, line.settings, self.images[part], self.labels[part], seeds, report)
        return found

    def _ahead(self, target: AttackTarget, common: dict[str, Any], spread: Spread) -> None:
        """All batches of all attacks on a preset that are missing, side by side on the workers."""
        missing: list[tuple[dict[str, Any], Job]] = []
        for number, line in enumerate(lines(target, self._settings)):
            made = line.attack.protocol(target, line.settings, common)
            for seed in self._settings.seeds:
                what = self._what(line, made, seed)
                for first in range(0, len(self.images), line.settings.batch):
                    if self._store.get({**what, "first": first}) is None:
                        missing.append(({**what, "first": first}, Job(target.name, number, seed, first)))
        for what, images in spread(missing):
            self._store.put(what, {"images": images})
            self._meter.show(0.0, f"{target.name}: attacks on the workers")

    def _judged(
        self, target: AttackTarget, made: AttackProtocol, versions: Sequence[Float32]
    ) -> tuple[AttackResult, list[Draws]]:
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
            right=tuple(found[0].right(accuracy.rule) for accuracy in accuracies),
            answers=found[0].answers[0],
        )
        return result, found

    def _draws(self, target: AttackTarget, images: Float32, label: str) -> Draws:
        count, logs, calls = max(self.votes(target.preset), self._settings.worst), [], []
        for first in range(0, len(images), self._settings.batch):
            part = images[first : first + self._settings.batch]
            noise = derived_seed(self.noise_seed, "judge", label, first, bits=62)

            def make(part: Float32 = part, noise: int = noise) -> dict[str, Any]:
                found, unet_calls = draw(target.purifier, target.preset, part, count, noise)
                return {"log_probabilities": found, "unet_calls": np.array(unet_calls)}

            what = {
                "what": "draws",
                "images": LabelledImages(part, None, ()).sha256,
                "noise": noise,
                "count": count,
                "preset": target.preset.model_dump_json(exclude={"description"}),
                "judge": self._judge,
            }
            words, cost = f"{target.name}: the engine answers", float(count * len(part) * target.calls)
            kept = self._store.get(what)
            if kept is None:
                kept = self._store.part(what, make)
                self._meter.add(cost, words)
            else:
                self._meter.known(cost, words)
            logs.append(kept["log_probabilities"])
            calls.append(float(kept["unet_calls"]) * len(part))
        return Draws(np.concatenate(logs, axis=1), self.labels, sum(calls) / len(images))

    def _noise_seed(self) -> int:
        if self._settings.noise_seed is not None:
            return self._settings.noise_seed
        kept = self._store.part({"what": "noise seed"}, lambda: {"seed": np.array(secrets.randbits(62), np.uint64)})
        return int(kept["seed"])

    def _common(self, target: AttackTarget) -> dict[str, Any]:
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
            "bundle_sha256": self._judge["bundle"],
            "images": self._drawn,
            "data_sha256": self._data.sha256,
            "seeds": self._settings.seeds,
        }


def _straight_through(precision: str) -> str:
    """What the gradient of a twin of few bits is."""
    if precision == "fp32":
        return ""
    return f" in {precision}" + (" (rounding has the gradient of the identity)" if precision in ("int8", "fp8") else "")
