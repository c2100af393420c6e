"""The experiment that decides where the noise of a deployment comes from.

One defence, three policies, the same attack and strength:

- ``secret``: fresh noise for every request, which nobody can predict (edgepure's default);
- ``process seed``: one secret seed per process and a stream that starts anew with every request, so that every request
  meets the same noise. The attacker does not know it; he can only see that answers repeat;
- ``known seed``: the same with a seed that the attacker knows (it is in the source code, or 0). He differentiates
  through the very noise that will be used, through all votes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgepure import SeededNoise
from edgepure.images.dataset import LabelledImages
from edgepure.types import Float32

from ..attacks.attack import AttackTarget
from ..attacks.defence import Defence, KnownNoise
from ..attacks.defence_noise import OneRequest
from ..attacks.gradient import GRADIENT_COST
from ..attacks.known import attack_named
from ..attacks.pgd import PGD
from ..attacks.protocol import AttackProtocol
from ..attacks.square import Square, log_probabilities
from ..digest import derived_seed
from ..work import Work
from .accuracy import Accuracy, accuracy_of
from .draws import Draws, draw, rules
from .settings import EvaluateSettings

POLICIES = ("secret", "process seed", "known seed")
#: Of the attack on the known noise: as many copies as there are votes, each with the noise of its vote.
_KNOWN = "every vote's own noise"


@dataclass(frozen=True)
class PolicyResult:
    """One policy under one attack: the three decision rules, and success after 1, 2, ... queries with one image."""

    policy: str
    accuracies: tuple[Accuracy, ...]
    resubmission: tuple[float, ...]

    @property
    def protocol(self) -> AttackProtocol:
        """Of these numbers."""
        return self.accuracies[0].protocol

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "policy": self.policy,
            "attack": self.protocol.attack,
            "accuracies": [a.to_dict() for a in self.accuracies],
            "resubmission": [round(v, 6) for v in self.resubmission],
        }


def policy_result_of(data: Mapping[str, Any]) -> PolicyResult:
    """The reverse of `PolicyResult.to_dict`. Raises KeyError, TypeError or ConfigError."""
    return PolicyResult(data["policy"], tuple(map(accuracy_of, data["accuracies"])), tuple(data["resubmission"]))


def noise_policy(
    target: AttackTarget,
    data: LabelledImages,
    settings: EvaluateSettings,
    store: Work,
    common: dict[str, Any],
    seeds: tuple[int, int],
    on_calls: Callable[[float], None] | None = None,
) -> tuple[PolicyResult, ...]:
    """PGD under each policy, and Square if the settings have it.

    Args:
        target: the preset that is attacked.
        data: labelled images.
        settings: steps, eps, EOT, votes (not None), worst; the first of its seeds is used.
        store: keeps finished attacks.
        common: what the protocols share, see `edgepure_calibration.attacks.Attack.protocol`.
        seeds: of the judging noise, and of the deployed stream under the two repeating policies.
        on_calls: told about how many UNet calls were just made, gradients counted as several.
    """
    experiment = _Experiment(target, data, settings, store, common, seeds, on_calls or (lambda calls: None))
    found = [experiment.white_box(policy) for policy in POLICIES]
    if "square" in settings.attacks:
        found += [experiment.black_box(policy) for policy in POLICIES[:2]]
    return tuple(found)


def policy_cost(target: AttackTarget, settings: EvaluateSettings) -> float:
    """UNet calls for one image, gradients counted as several."""
    copies = settings.eot + (settings.votes or 1)
    square = 2.0 * settings.queries if "square" in settings.attacks else 0.0
    return target.calls * (GRADIENT_COST * settings.steps * copies + square)


class _Experiment:
    def __init__(
        self,
        target: AttackTarget,
        data: LabelledImages,
        settings: EvaluateSettings,
        store: Work,
        common: dict[str, Any],
        seeds: tuple[int, int],
        on_calls: Callable[[float], None],
    ) -> None:
        assert data.labels is not None and settings.votes is not None
        self._target, self._images, self._labels, self._settings = target, data.images, data.labels, settings
        self._votes, self._store, self._spend = settings.votes, store, on_calls
        self._judge, self._deployed = seeds
        self._common = {**common, "seeds": settings.seeds[:1]}

    def white_box(self, policy: str) -> PolicyResult:
        """PGD with the attacker's own noise (EOT), or with the very noise where he knows it."""
        settings, known = self._settings, policy == "known seed"
        made = attack_named("pgd").protocol(self._target, replace(settings, mask_gradient="none"), self._common)
        eot = self._votes if known else settings.eot
        made = replace(made, eot=eot, noise=self._words(policy))
        if known:
            made = replace(
                made,
                gradient=made.gradient.replace("noise of the forward pass reused", _KNOWN),
                selection="iterate with the smallest margin of the soft vote",
            )
        # The attacker does the same whether the noise is fresh or only unknown, so both meet the same images.
        what = {
            "what": "noise policy",
            "known": self._deployed if known else None,
            "eot": eot,
            "protocol": replace(made, noise="any", judge="any").key,
        }
        seed = derived_seed(settings.seeds[0], "noise policy")
        attack = PGD(
            settings.eps,
            settings.steps,
            eot,
            seed=seed,
            batch=settings.batch,
            norm=settings.norm,
            copies=None if known else settings.copies,
            keep_best=known,
        )

        per_copy = GRADIENT_COST * eot * self._target.calls

        def make() -> dict[str, Any]:
            parts = []
            for first in range(0, len(self._images), settings.batch):
                part = slice(first, first + settings.batch)
                x, y = (torch.from_numpy(a[part]).to(self._target.device) for a in (self._images, self._labels))
                twin, preset = self._target.twin, self._target.preset
                logits = (
                    KnownNoise(twin, preset, SeededNoise(self._deployed), len(x))
                    if known
                    else Defence(twin, preset, derived_seed(seed, first))
                )

                def spent(_: int, cost: float = len(y) * per_copy) -> None:
                    self._spend(cost)

                parts.append(attack(logits, x, y, spent).cpu().numpy())
            return {"images": np.concatenate(parts)}

        return self._answered(policy, made, self._store.part(what, make)["images"])

    def black_box(self, policy: str) -> PolicyResult:
        """Square against the engine: repeating answers are an easier target than random ones."""
        settings, target = self._settings, self._target
        made = attack_named("square").protocol(target, settings, self._common)
        made = replace(made, noise=self._words(policy))
        asked = 0

        def answers(batch: Float32) -> Float32:
            nonlocal asked
            source = OneRequest(SeededNoise(self._deployed)) if policy != "secret" else SeededNoise(self._judge + 1)
            ids = range(asked, asked + len(batch))
            asked += len(batch)
            results = target.purifier.run(batch, target.preset, votes=1, noise=source, ids=ids)
            return log_probabilities(np.stack([r.probabilities for r in results]))

        def make() -> dict[str, Any]:
            seed, each = derived_seed(settings.seeds[0], "noise policy, square"), len(self._images) * target.calls
            # Answers that repeat need no second look.
            attack = Square(settings.eps, settings.queries, recheck=10 if policy == "secret" else 0, seed=seed)
            found = attack(answers, self._images, self._labels, lambda _: self._spend(each))
            return {"images": found.images}

        what = {"what": "noise policy, square", "protocol": made.key, "deployed": self._deployed}
        return self._answered(policy, made, self._store.part(what, make)["images"])

    def _answered(self, policy: str, made: AttackProtocol, images: Float32) -> PolicyResult:
        """N requests one after another for `single` and `worst`; the votes of one request for `majority`."""
        single, worst, majority = rules(self._votes, self._settings.worst)
        target, labels = self._target, self._labels
        noise = derived_seed(self._judge, policy, made.attack, bits=62)
        if policy == "secret":
            count = max(worst.count, majority.count)
            requests = votes = Draws(*_of(draw(target.purifier, target.preset, images, count, noise), labels))
        else:
            stream = SeededNoise(self._deployed)
            again = draw(target.purifier, target.preset, images, worst.count, lambda n: OneRequest(stream))
            inside = draw(target.purifier, target.preset, images, majority.count, lambda n: OneRequest(stream, n))
            requests, votes = Draws(*_of(again, labels)), Draws(*_of(inside, labels))
        accuracies = tuple(
            Accuracy(made, rule, (int((votes if rule is majority else requests).right(rule).sum()),), len(labels))
            for rule in (single, worst, majority)
        )
        return PolicyResult(policy, accuracies, tuple(requests.resubmission()))

    def _words(self, policy: str) -> str:
        return {
            "secret": "secret and fresh for every answer; the attacker draws his own",
            "process seed": "one secret stream, the same for every request; the attacker draws his own",
            "known seed": "one stream, the same for every request, and the attacker knows it",
        }[policy]


def _of(found: tuple[Float32, float], labels: NDArray[np.int64]) -> tuple[Float32, NDArray[np.int64], float]:
    return found[0], labels, found[1]
