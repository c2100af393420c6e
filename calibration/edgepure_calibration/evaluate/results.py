"""What an evaluation found."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgepure import Preset
from edgepure.intervals import clopper_pearson
from edgepure.types import Float32

from ..attacks.known import known_attacks
from ..attacks.protocol import AttackProtocol
from .accuracy import Accuracy, Footnotes, accuracy_of, protocol_of
from .settings import EvaluateSettings


@dataclass(frozen=True)
class Agreement:
    """Does the deployed engine decide the adversarial images as the twin does that they were made with?

    Attributes:
        images: compared, one purification each with the same noise on both sides.
        flips: answers that differ.
        difference: largest difference of a purified pixel, over images whose mask is the same.
        masks: images whose mask differs in some pixel; None for presets without a mask.
    """

    images: int
    flips: int
    difference: float
    masks: int | None = None

    @property
    def bound(self) -> float:
        """One-sided 95 % upper bound of the share of answers that differ."""
        return clopper_pearson(self.flips, self.images, 0.9)[1]

    def __str__(self) -> str:
        masks = "" if self.masks is None else f", {self.masks} masks differ"
        return (
            f"{self.flips} of {self.images} answers differ (at most {100 * self.bound:.1f} % with 95 % confidence)"
            f"{masks}, pixels by at most {self.difference:.1e}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "images": self.images,
            "flips": self.flips,
            "upper_bound95": round(self.bound, 6),
            "largest_pixel_difference": self.difference,
            "masks_that_differ": self.masks,
        }


@dataclass(frozen=True)
class AttackResult:
    """One attack on one preset (or clean images, attack ``none``).

    Attributes:
        accuracies: single, worst of N, majority of K.
        resubmission: attacker's success after 1, 2, ... queries with the same image, mean over seeds.
        unet_calls: mean of one answer of one purification.
        agreement: of twin and engine on these images; None for clean ones.
        plain: accuracy of the classifier alone on the same images.
        right: for each of the accuracies, which images ``[N]`` were decided right by the first seed.
        images: the attacked ones of the first seed, ``[N, C, H, W]``.
        answers: what one purification of each of them is read as, ``[N]`` int64; empty if that was not kept.
    """

    accuracies: tuple[Accuracy, ...]
    resubmission: tuple[float, ...]
    unet_calls: float
    plain: Accuracy
    agreement: Agreement | None = None
    right: tuple[NDArray[np.bool_], ...] = field(default=(), repr=False)
    images: Float32 = field(default_factory=lambda: np.zeros((0, 1, 1, 1), np.float32), repr=False)
    answers: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64), repr=False)

    @property
    def protocol(self) -> AttackProtocol:
        """Of all of these numbers."""
        return self.accuracies[0].protocol

    def by_rule(self, kind: str) -> Accuracy:
        """The accuracy of one decision rule."""
        return next(a for a in self.accuracies if a.rule.kind == kind)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, without images."""
        return {
            "attack": self.protocol.attack,
            "title": self.protocol.title,
            "accuracies": [a.to_dict() for a in self.accuracies],
            "resubmission": [round(v, 6) for v in self.resubmission],
            "unet_calls_of_one_purification": round(self.unet_calls, 3),
            "classifier_alone": self.plain.to_dict(),
            "agreement": None if self.agreement is None else self.agreement.to_dict(),
        }


def attack_result_of(data: Mapping[str, Any]) -> AttackResult:
    """The reverse of `AttackResult.to_dict`, without images. Raises KeyError, TypeError or ConfigError."""
    same = data["agreement"]
    return AttackResult(
        accuracies=tuple(accuracy_of(part) for part in data["accuracies"]),
        resubmission=tuple(data["resubmission"]),
        unet_calls=data["unet_calls_of_one_purification"],
        plain=accuracy_of(data["classifier_alone"]),
        agreement=None
        if same is None
        else Agreement(same["images"], same["flips"], same["largest_pixel_difference"], same["masks_that_differ"]),
    )


@dataclass(frozen=True)
class PresetResult:
    """One preset: what it costs, clean and under every attack.

    Attributes:
        union: under all attacks but surrogates at once, by each rule; empty if there are not several. See `.union`.
    """

    name: str
    preset: Preset
    unet_calls: int
    clean: AttackResult
    attacks: tuple[AttackResult, ...]
    union: tuple[Accuracy, ...] = ()

    @property
    def worst(self) -> AttackResult | None:
        """The attack that leaves the lowest single-purification accuracy; surrogates do not count."""
        counted = [a for a in self.attacks if not a.protocol.surrogate]
        return min(counted, key=lambda a: a.by_rule("single").fraction, default=None)

    def mask_gains(self) -> list[tuple[AttackResult, AttackResult]]:
        """Pairs of the same attack, blind to the mask and with a gradient of it."""
        blind = {a.protocol.attack: a for a in self.attacks if a.protocol.mask_gradient == "none"}
        return [
            (blind[a.protocol.attack], a)
            for a in self.attacks
            if a.protocol.mask_gradient not in (None, "none") and a.protocol.attack in blind
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "name": self.name,
            "preset": self.preset.model_dump(mode="json"),
            "unet_calls_of_one_purification": self.unet_calls,
            "clean": self.clean.to_dict(),
            "attacks": [a.to_dict() for a in self.attacks],
            "union": [a.to_dict() for a in self.union],
        }


def preset_result_of(data: Mapping[str, Any], kind: type[Preset] = Preset) -> PresetResult:
    """The reverse of `PresetResult.to_dict`. Raises KeyError, TypeError or ConfigError."""
    return PresetResult(
        name=data["name"],
        preset=kind.parse(data["preset"]),
        unet_calls=data["unet_calls_of_one_purification"],
        clean=attack_result_of(data["clean"]),
        attacks=tuple(attack_result_of(part) for part in data["attacks"]),
        union=tuple(accuracy_of(part) for part in data["union"]),
    )


@dataclass(frozen=True)
class Evaluated:
    """What an evaluation found.

    Attributes:
        bundle: name; ``bundle_sha256`` of its graphs and weights.
        presets: what was measured.
        images, labels: the clean ones that were used.
        classes: names.
        settings: what was asked for.
        facts: machine, versions, engine, seconds, memory estimate.
        experiments: further results by name (``noise_policy``) and preset.
        baselines: no defence at all, and cheap filters, under the same attacks.
        crossed: (preset that was attacked, preset that answers, result): attacks that were made on another preset.
        numbered: protocols whose footnotes come first, whether or not their numbers are still here.
    """

    bundle: str
    bundle_sha256: str
    presets: tuple[PresetResult, ...]
    images: Float32 = field(repr=False)
    labels: NDArray[np.int64] = field(repr=False)
    classes: tuple[str, ...]
    settings: EvaluateSettings
    facts: Mapping[str, Any]
    all_presets: Sequence[str]
    experiments: Mapping[str, Mapping[str, Sequence[Any]]] = field(default_factory=dict)
    baselines: tuple[PresetResult, ...] = ()
    crossed: tuple[tuple[str, str, AttackResult], ...] = ()
    numbered: tuple[AttackProtocol, ...] = ()

    def footnotes(self) -> Footnotes:
        """The numbers of all protocols, the same wherever this evaluation is shown."""
        return Footnotes(self.protocols(), self.numbered)

    def protocols(self) -> list[AttackProtocol]:
        """Those of all numbers, in the order in which they are shown."""
        found: list[AttackProtocol] = []
        for preset in (*self.presets, *self.baselines):
            for attack in (preset.clean, *preset.attacks):
                found += [attack.protocol, attack.plain.protocol]
            found += [accuracy.protocol for accuracy in preset.union[:1]]
        found += [result.protocol for _, _, result in self.crossed]
        for by_preset in self.experiments.values():
            found += [result.protocol for results in by_preset.values() for result in results]
        return found

    def not_tested(self) -> list[str]:
        """What the numbers that are shown, of whichever run, say nothing about; one sentence each."""
        made = [a.protocol for p in self.presets for a in p.attacks]
        known, done = known_attacks(), {protocol.attack for protocol in made}
        done |= {part for name in done if name in known for part in known[name].includes}
        rest = [name for name in known if name not in done]
        found = [f"attacks that were not run: {', '.join(rest)}"] if rest else []
        others = [name for name in self.all_presets if name not in {p.name for p in self.presets if p.attacks}]
        if others:
            found.append(f"presets that were not attacked: {', '.join(others)}")
        balls = sorted({(p.norm, p.eps) for p in made if p.norm is not None and p.eps is not None})
        if balls:
            sizes = " and ".join(f"{norm} of radius {eps:.4g}" for norm, eps in balls)
            found.append(f"any ball but {sizes}; other norms and larger radii")
        geometry = "other geometry than small rotations and shifts" if "geometry" in done else "rotations and shifts"
        found.append(f"targeted attacks, patches, {geometry}, and attacks bounded by LPIPS")
        if not self.crossed:
            found.append("images that were attacked through another preset (--cross)")
        if any(p.preset.mask is not None for p in self.presets) and {p.mask_gradient for p in made} <= {None, "none"}:
            found.append("attackers who differentiate through the attention mask (--mask-gradient soft)")
        if any(p.preset.ssni is not None for p in self.presets):
            if "pgd-small-norm" not in done:
                found.append("attackers who keep the score norm small (attack pgd-small-norm)")
            found.append("gradients of SSNI's rounded noise level: it is detached in every attack")
        steps, eot = {p.steps for p in made if p.steps}, {p.eot for p in made if p.eot}
        if min(steps, default=100) < 100 or min(eot, default=20) < 20:
            found.append(
                f"stronger settings of the same attacks: {_span(steps)} steps, EOT {_span(eot)}; critics ask for 100 "
                "and 20"
            )
        images = {a.plain.images for p in self.presets for a in p.attacks}
        if min(images, default=256) < 256:
            found.append(f"more than {_span(images)} images; critics ask for at least 256")
        if all(len(protocol.seeds) == 1 for protocol in made):
            found.append("more than one seed")
        if "noise_policy" not in self.experiments:
            found.append("an attacker who knows or predicts the noise (--noise-policy)")
        if not self.baselines:
            found.append("the classifier without any defence, and cheap filters, under the same attacks (--baseline)")
        judges = dict.fromkeys([self.facts["engine"], *(protocol.judge for protocol in made)])
        found.append(f"other engines and precisions than {' and '.join(judges)}")
        found.append(
            "attacks that nobody has thought of yet: an evaluation is an upper bound of robustness, no proof of it"
        )
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON. Beside every protocol stands the number of its footnote."""
        notes = self.footnotes()
        data = {
            "bundle": self.bundle,
            "bundle_sha256": self.bundle_sha256,
            "presets": [p.to_dict() for p in self.presets],
            "baselines": [p.to_dict() for p in self.baselines],
            "crossed": [
                {"attacked": source, "answers": name, **result.to_dict()} for source, name, result in self.crossed
            ],
            "footnotes": notes.lines(),
            "not_tested": self.not_tested(),
            "experiments": {
                name: {preset: [r.to_dict() for r in found] for preset, found in by_preset.items()}
                for name, by_preset in self.experiments.items()
            },
            "facts": dict(self.facts),
        }
        _number(data, notes)
        return data


def _number(data: Any, notes: Footnotes) -> None:
    """Put the number of its footnote beside every protocol in plain data."""
    if isinstance(data, Mapping) and isinstance(data.get("protocol"), Mapping):
        data["footnote"] = notes.cite(protocol_of(data["protocol"]))  # type: ignore[index]
    elif isinstance(data, Mapping | list):
        for part in data.values() if isinstance(data, Mapping) else data:
            _number(part, notes)


def _span(numbers: Collection[int]) -> str:
    """``5``, or ``5 to 20``."""
    low, high = min(numbers, default=0), max(numbers, default=0)
    return f"{low}" if low == high else f"{low} to {high}"
