"""Certificates of a purifier: how often the answers to noised copies agree, and the L2 radius that this proves.

The rule is that of Cohen et al. 2019 (arXiv 1902.02918): ``n0`` answers choose a class, ``n`` fresh ones count it,
``p`` is the one-sided exact lower bound of its share at ``1 - alpha``, and the smoothed answer is this class for every
image within ``sigma * PhiInv(p)``; below p = 1/2 it abstains. With ``radius`` the counting of an image stops as soon as
that radius is settled, by bounds that hold at all times at once (`edgepure.intervals`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from time import perf_counter
from typing import Any

import numpy as np

from ..errors import ConfigError
from ..intervals import anytime_log_evidence, anytime_lower_bound, lower_bound
from ..methods.presets import Preset
from ..rows.grid_noise import levels_of, noised_input
from ..rows.noise import NoiseSource, StreamNoise
from ..types import Float32
from .graphs import OpenGraphs
from .inflight import InFlight, Job

_NORMAL = NormalDist()
#: Answers of one kind to one image: votes have 24 bits in the noise stream.
MOST = 1 << 23


@dataclass(frozen=True)
class Certificate:
    """What is proven of one image, with an error of at most ``alpha``.

    Attributes:
        name: file name or position of the image.
        label: the class that the smoothed classifier gives it; None: it abstains.
        class_name: its name.
        radius: L2, on images in [0, 1]: the label is the same for every image that is nearer. 0 if it abstains.
        sigma: the certified noise of the plan, on images in [0, 1].
        probability: lower bound of the share of answers that are this class.
        count: how many of ``samples`` answers were this class.
        samples: answers that were counted; those that chose the class are not among them.
        exact: True if the noise was drawn on the grid of 8-bit levels, so that the proof covers the arithmetic too.
        seconds: from the image's first answer to its last.
    """

    name: str
    label: int | None
    class_name: str | None
    radius: float
    sigma: float
    probability: float
    count: int
    samples: int
    exact: bool
    seconds: float = field(compare=False)

    @property
    def abstained(self) -> bool:
        return self.label is None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**self.__dict__, "seconds": round(self.seconds, 6)}


@dataclass(frozen=True)
class CertifySettings:
    """How much is counted, and how sure the certificate is.

    Attributes:
        n: answers that are counted for each image, at most with ``radius``.
        n0: answers that choose the class first.
        alpha: the probability that the certificate of an image is wrong, at most.
        radius: the counting of an image ends when this radius is settled either way; None: all ``n`` are counted.
    """

    n: int = 10_000
    n0: int = 100
    alpha: float = 0.001
    radius: float | None = None

    def __post_init__(self) -> None:
        for name, count in (("n", self.n), ("n0", self.n0)):
            if not 1 <= count <= MOST:
                raise ConfigError(f"{name} {count} must lie in 1 .. {MOST}", code="E-certificate-settings")
        if not 0.0 < self.alpha < 0.5:
            raise ConfigError(f"alpha {self.alpha} must lie in (0, 0.5)", code="E-certificate-settings")
        if self.radius is not None and not 0.0 <= self.radius < 100.0:
            raise ConfigError(f"radius {self.radius} must be at least 0", code="E-certificate-settings")


class _Tally:
    """The answers to one image, taken in the order of its votes whatever the order in which they arrive."""

    def __init__(self, classes: int, settings: CertifySettings, sigma: float) -> None:
        self._settings = settings
        self._first = np.zeros(classes, np.int64)
        self._early: dict[int, int] = {}
        self.label = -1
        self.count = self.samples = self._seen = 0
        self.done = False
        self._share = None if settings.radius is None else min(_NORMAL.cdf(settings.radius / sigma), 1.0 - 2**-53)
        self.started, self.ended = perf_counter(), 0.0

    def add(self, vote: int, label: int) -> None:
        """An answer. What comes after the image is done is not counted."""
        self._early[vote] = label
        while not self.done and self._seen in self._early:
            self._count(self._early.pop(self._seen))
            self._seen += 1

    def _count(self, label: int) -> None:
        if self._seen < self._settings.n0:
            self._first[label] += 1
            self.label = int(self._first.argmax())
            return
        self.samples += 1
        self.count += label == self.label
        settled = self._share is not None and (
            anytime_log_evidence(self.count, self.samples, self._share) >= -math.log(self._settings.alpha)
        )
        if settled or self.samples == self._settings.n:
            self.done, self.ended = True, perf_counter()
            self._early.clear()

    def probability(self) -> float:
        """Lower bound of the share of the chosen class."""
        bound = lower_bound if self._share is None else anytime_lower_bound
        return bound(self.count, self.samples, self._settings.alpha)


class Certifier:
    """Counts the answers of a bundle's graphs with one preset."""

    def __init__(self, graphs: OpenGraphs, preset: Preset, settings: CertifySettings) -> None:
        """Raises ConfigError with the reason if the preset has no certificate."""
        self._graphs, self._settings = graphs, settings
        self.sigma = graphs.planner.certified_sigma(preset)
        self._plan, self._preset = graphs.planner.plan(preset), preset

    def run(
        self,
        images: Float32,
        source: NoiseSource,
        names: Sequence[str],
        on_certificate: Callable[[int, Certificate], object],
        *,
        ids: Sequence[int] | None = None,
        on_answers: Callable[[int], object] | None = None,
    ) -> None:
        """Certify images ``[B, C, H, W]`` in [0, 1].

        Args:
            source: of the noise; image i is image ``ids[i]`` of it, None: i.
            on_certificate: called with (position, certificate) as they are done.
            on_answers: called with the number of answers that were just classified.
        """
        graphs, settings = self._graphs, self._settings
        tallies: dict[int, _Tally] = {}
        exact: dict[int, bool] = {}
        finished: list[tuple[int, int, Float32]] = []  # purified images that wait for the classifier

        def jobs() -> Iterator[Job]:
            for index, image in enumerate(images):
                number = index if ids is None else ids[index]
                levels = levels_of(image) if self._plan.sees_input_once else None
                exact[index] = levels is not None and isinstance(self._noise(source, number, 0), StreamNoise)
                self._check_precision(exact[index], names[index])
                tallies[index] = tally = _Tally(len(graphs.classes), settings, self.sigma)
                for vote in range(settings.n0 + settings.n):
                    if tally.done:
                        break
                    noise = self._noise(source, number, vote)
                    if exact[index]:
                        assert levels is not None and isinstance(noise, StreamNoise)
                        ref, later = noised_input(levels, noise, self.sigma)
                        yield Job(self._plan, later, ref, tag=(index, vote))
                    else:
                        yield Job(self._plan, noise, 2.0 * image - 1.0, tag=(index, vote))

        def done(job: Job, x: Float32) -> None:
            finished.append((*job.tag, np.clip(0.5 * x + 0.5, 0.0, 1.0)))
            if len(finished) >= max(graphs.slots, 64):
                classify()

        def classify() -> None:
            if not finished:
                return
            answers = graphs.logits(np.stack([x for _, _, x in finished])).argmax(axis=1)
            for (index, vote, _), label in zip(finished, answers, strict=True):
                tally = tallies.get(index)
                if tally is None:  # votes that were under way when it was settled
                    continue
                tally.add(vote, int(label))
                if tally.done:
                    del tallies[index]
                    on_certificate(index, self._certificate(names[index], tally, exact[index]))
            count = len(finished)
            finished.clear()
            if on_answers is not None:
                on_answers(count)

        InFlight(graphs.stepper(graphs.step_graph(self._preset))).run(jobs(), done)
        classify()

    def _noise(self, source: NoiseSource, index: int, vote: int) -> Any:
        return source.for_image(self._plan, index, vote, None, self._graphs.image_shape)

    def _check_precision(self, exact: bool, name: str) -> None:
        if self._graphs.precision != "fp32" and not exact:
            raise ConfigError(
                f"no certificate in {self._graphs.precision} for image {name}: its noise would be added in less than "
                "32 bits; give 8-bit images and a preset that sees its input once (method smooth), or use fp32",
                code="E-certificate-precision",
            )

    def _certificate(self, name: str, tally: _Tally, exact: bool) -> Certificate:
        p = tally.probability()
        sure = p > 0.5
        return Certificate(
            name=name,
            label=tally.label if sure else None,
            class_name=self._graphs.classes[tally.label] if sure else None,
            radius=self.sigma * _NORMAL.inv_cdf(p) if sure else 0.0,
            sigma=self.sigma,
            probability=p,
            count=tally.count,
            samples=tally.samples,
            exact=exact,
            seconds=tally.ended - tally.started,
        )
