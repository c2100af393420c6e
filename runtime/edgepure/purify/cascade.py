"""Cascades: strong noise answers where it is sure, and hands what it leaves open on to weaker noise.

The answer is a function of the shares of the answers: that of the first noise at which a class has the share ``tau``,
else the most probable one of the last noise. A change of the image can move an answer from one noise to another, so the
hand-over is part of what is certified. Of a class c and a noise sigma let p be its share and q the largest share of any
other class; within an L2 distance r the inverse normal of each moves by r / sigma at most. So no *other* class gets tau
at this noise within ``holds = sigma (PhiInv(tau) - PhiInv(q))``, and c itself has it within
``settles = sigma (PhiInv(p) - PhiInv(tau))``; and the radius of the cascade from this noise on is

    R = max(settles, min(holds, R of the weaker noises)),        of the last noise: sigma PhiInv(p)

`docs/certificates.md` has the proof. That a per-image choice between smoothed classifiers has to be certified itself is
the point of compositional architectures (Horvath et al. 2022, arXiv 2204.00487).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..intervals import anytime_log_evidence, enough_evidence, lower_bound
from ..methods.presets import Preset, SequentialSpec
from ..rows.noise import NoiseSource
from ..types import Float32
from .ballot import FIRST_SHARE, SHRINK, Ballot
from .certificate import MOST, Certificate, CertifySettings
from .certify import Certifier
from .graphs import OpenGraphs
from .tally import EXPECTED_FAILURES, FAILURES

_NORMAL = NormalDist()


@dataclass(frozen=True)
class Level:
    """What is known of one noise: the share of the class is ``lower`` at least, that of any other ``upper`` at most."""

    sigma: float
    lower: float
    upper: float

    def settles(self, share: float) -> float:
        """Within this distance the class has ``share`` of the answers."""
        return self.sigma * (_inverse(self.lower) - _inverse(share))

    def holds(self, share: float) -> float:
        """Within this distance no other class has."""
        return self.sigma * (_inverse(share) - _inverse(self.upper))


def radius_of(levels: Sequence[Level], share: float, *, whole: bool) -> float:
    """The certified radius of a cascade from what is known of its first noises; not above 0: there is none.

    ``whole``: these are all of them, so that the last one answers by its most probable class.
    """
    last = levels[-1]
    radius = last.settles(0.5 if whole else share)
    for level in reversed(levels[:-1]):
        radius = max(level.settles(share), min(level.holds(share), radius))
    return radius


class CascadeCertifier:
    """Certifies the answers of a cascade. Raises ConfigError as `Certifier` does, for each of its noises."""

    def __init__(self, graphs: OpenGraphs, preset: Preset, settings: CertifySettings) -> None:
        assert preset.cascade is not None
        self._share, self._settings, self._classes = preset.cascade.share, settings, graphs.classes
        self._chosen_by = 100 if settings.n0 is None else settings.n0
        self._stages = [Certifier(graphs, stage, settings) for stage in preset.stages]
        self.sigma = min(stage.sigma for stage in self._stages)
        if len(self._stages) * (settings.n + self._chosen_by) > 2 * MOST:
            raise ConfigError(
                f"a cascade of {len(self._stages)} noises has {2 * MOST} answers for an image in all; count fewer (n)",
                code="E-certificate-count",
            )

    @property
    def reach(self) -> float:
        """As `Certifier.reach`."""
        n, last = self._settings.n, len(self._stages) - 1
        lower = [lower_bound(n, n, self._each(stage)) for stage in range(last + 1)]
        levels = [Level(stage.sigma, low, 1.0 - low) for stage, low in zip(self._stages, lower, strict=True)]
        return radius_of(levels, self._share, whole=True)

    def check(self, images: Float32, source: NoiseSource, names: Sequence[str], ids: Sequence[int]) -> None:
        """As `Certifier.check`."""
        for stage in self._stages:
            stage.check(images, source, names, ids)

    def run(
        self,
        images: Float32,
        source: NoiseSource,
        names: Sequence[str],
        on_certificate: Callable[[int, Certificate], object],
        *,
        ids: Sequence[int] | None = None,
    ) -> None:
        """As `Certifier.run`; image by image, from noise to noise."""
        self.check(images, source, names, range(len(images)) if ids is None else ids)
        for index, image in enumerate(images):
            number = index if ids is None else ids[index]
            on_certificate(index, self._certify(image[None], source, names[index], number))

    def _certify(self, image: Float32, source: NoiseSource, name: str, number: int) -> Certificate:
        """Each noise has answers of its own, and counts them with its part of alpha."""
        start, settings, chosen = perf_counter(), self._settings, self._chosen_by
        counts: list[NDArray[np.int64]] = []
        label: int | None = None  # once a noise has settled on it
        candidate, settled_at, answers = -1, 0, 0
        for stage, certifier in enumerate(self._stages):
            first = stage * (chosen + settings.n)
            if label is None:
                found = certifier.answers(image, source, range(first, first + chosen), [number])
                candidate, answers = int(np.bincount(found[0]).argmax()), answers + chosen
            votes = range(first + chosen, first + chosen + settings.n)
            found = certifier.answers(image, source, votes, [number])
            counts.append(np.bincount(found[0], minlength=len(self._classes)))
            answers, settled_at = answers + settings.n, settled_at if label is not None else stage
            if label is None and self._level(stage, counts, candidate).settles(self._share) > 0.0:
                label = candidate
            if self._enough(counts, candidate, label is not None):
                break
        levels = [self._level(stage, counts, candidate) for stage in range(len(counts))]
        radius = radius_of(levels, self._share, whole=len(levels) == len(self._stages))
        sure = radius > 0.0
        return Certificate(
            name=name,
            label=candidate if sure else None,
            class_name=self._classes[candidate] if sure else None,
            radius=max(radius, 0.0),
            sigma=levels[settled_at].sigma,
            probability=levels[settled_at].lower,
            count=int(counts[settled_at][candidate]),
            samples=settings.n,
            answers=answers,
            exact=all(certifier.exact(image[0], source, number) for certifier in self._stages[: len(levels)]),
            seconds=perf_counter() - start,
        )

    def _level(self, stage: int, counts: Sequence[NDArray[np.int64]], label: int) -> Level:
        """Bounds with the noise's part of alpha.

        Whether a class is asked about depends on the counts of stronger noises, so before the last one they hold for
        all classes at once. At the last noise they do not matter: its answers are counted for one class, which was
        chosen without them.
        """
        n, each = self._settings.n, self._each(stage)
        sigma, count = self._stages[stage].sigma, int(counts[stage][label])
        lower = lower_bound(count, n, each)
        if stage == len(self._stages) - 1:
            return Level(sigma, lower, 1.0)
        others = [1.0 - lower_bound(n - int(k), n, each) for c, k in enumerate(counts[stage]) if c != label]
        return Level(sigma, lower, min(max(others, default=0.0), 1.0 - lower))

    def _each(self, stage: int) -> float:
        """The part of alpha that each bound at a noise has: two for every class, but one at the last noise."""
        part = self._settings.alpha / len(self._stages)
        return part if stage == len(self._stages) - 1 else part / (2 * len(self._classes))

    def _enough(self, counts: Sequence[NDArray[np.int64]], label: int, settled: bool) -> bool:
        """Whether no weaker noise could add to the radius, or it is what was asked for."""
        if len(counts) == len(self._stages):
            return True
        if not settled:  # a weaker noise may choose another class
            return False
        levels = [self._level(stage, counts, label) for stage in range(len(counts))]
        now = radius_of(levels, self._share, whole=False)
        last = len(self._stages) - 1
        unanimous = _inverse(lower_bound(self._settings.n, self._settings.n, self._each(last)))
        most = max(stage.sigma for stage in self._stages[len(counts) :]) * unanimous
        best = min(most, *(level.holds(self._share) for level in levels))
        return now >= best or (self._settings.radius is not None and now >= self._settings.radius)


def certifier_of(graphs: OpenGraphs, preset: Preset, settings: CertifySettings) -> Certifier | CascadeCertifier:
    """What certifies the answers of a preset.

    Raises:
        ConfigError: as they do, or so many answers cannot prove what is asked for.
    """
    found = (Certifier if preset.cascade is None else CascadeCertifier)(graphs, preset, settings)
    settings.check_reach(found.reach, found.sigma)
    return found


class CascadeBallot:
    """The votes on one image that a cascade answers.

    At every noise but the last it is settled, by confidence sequences that hold at all times at once, whether a class
    has the share, or none has: then the next noise votes. Each noise may err with its part of alpha.

    Attributes:
        level: the noise that votes at the moment, or has answered.
        first: votes that were cast at stronger noises.
        settled: the class that is declared; None as long as there is none.
        votes: how many were cast in all.
    """

    def __init__(self, spec: SequentialSpec, share: float, levels: int) -> None:
        self._share, self._last = share, levels - 1
        self._part = spec.model_copy(update={"alpha": spec.alpha / levels})
        self._most = spec.max
        self.level = self.first = self.votes = 0
        self.settled: int | None = None
        self._begin()

    def _begin(self) -> None:
        self._ballot = Ballot(self._part) if self.level == self._last else None
        self._all: Counter[int] = Counter()
        self._since: dict[int, tuple[int, int]] = {}

    @property
    def open(self) -> bool:
        """True if more votes may be cast."""
        if self._ballot is not None:
            return self._ballot.open
        return self.settled is None and self.votes - self.first < self._most

    def cast(self, label: int) -> None:
        """One more vote, of the noise `level`."""
        self.votes += 1
        if self._ballot is not None:
            self._ballot.cast(label)
            self.settled = self._ballot.settled
            return
        for number, (candidate, (samples, wins)) in enumerate(self._since.items()):
            self._since[candidate] = samples + 1, wins + (label == candidate)
            if self._settles(number, *self._since[candidate]):
                self.settled = candidate
        self._all[label] += 1
        if all(n < self._all[label] for other, n in self._all.items() if other != label):
            self._since.setdefault(label, (0, 0))
        if self.settled is None and self._hands_on(self.votes - self.first, max(self._all.values())):
            self.level, self.first = self.level + 1, self.votes
            self._begin()

    def fewest(self) -> int:
        """How many further votes of this noise are needed at least."""
        if self._ballot is not None:
            return self._ballot.fewest()
        votes = self.votes - self.first
        left = self._most - votes
        leader = max(self._all.values(), default=1)
        known = list(self._since.values())

        def ends(more: int) -> bool:
            # before the first vote there is no candidate: that vote only names one
            runs = [(s + more, w + more) for s, w in known] or [(more - 1, more - 1)]
            if known:  # and a class that comes to lead
                runs.append((more - 1, more - 1))
            settled = any(self._settles(number, s, w) for number, (s, w) in enumerate(runs))
            return settled or self._hands_on(votes + more, leader)

        return min(left, 1 + bisect_left(range(1, left), True, key=ends))

    def _settles(self, number: int, samples: int, wins: int) -> bool:
        """Whether the share of a candidate is above what is asked for."""
        if not samples or wins <= self._share * samples:
            return False
        fail = EXPECTED_FAILURES * (1.0 - self._share)
        prior = (FAILURES * (1.0 - fail) / fail, FAILURES)
        risk = 0.5 * self._part.alpha * FIRST_SHARE * SHRINK**number
        return anytime_log_evidence(wins, samples, self._share, prior) >= enough_evidence(risk)

    def _hands_on(self, votes: int, leader: int) -> bool:
        """Whether no class has the share: not even the one with most votes, and others have less."""
        below = leader < self._share * votes
        return below and anytime_log_evidence(leader, votes, self._share) >= enough_evidence(0.5 * self._part.alpha)


def _inverse(share: float) -> float:
    if share <= 0.0:
        return -math.inf
    return math.inf if share >= 1.0 else _NORMAL.inv_cdf(share)
