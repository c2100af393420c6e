"""Certificates of a purifier: how often the answers to noised copies agree, and the L2 radius that this proves.

The rule is that of Cohen et al. 2019 (arXiv 1902.02918): ``n0`` answers choose a class, ``n`` fresh ones count it,
``p`` is the one-sided exact lower bound of its share at ``1 - alpha``, and the smoothed answer is this class for every
image within ``sigma * PhiInv(p)``; below p = 1/2 it abstains. With ``radius`` the counting of an image stops as soon as
that radius is settled, by bounds that hold at all times at once (`edgepure.intervals`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral, Real
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..intervals import lower_bound
from ..methods.presets import Preset
from ..rows.grid_noise import levels_of, noised_input
from ..rows.noise import NoiseSource, RowNoise, StreamNoise
from ..types import Float32
from ..validation import expect
from .graphs import OpenGraphs
from .inflight import InFlight, Job
from .masks import after_mask
from .tally import FixedTally, RadiusTally, Tally, share_of

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
        samples: answers that were counted; those that chose the class are not among them. With ``radius``: since the
            class became a candidate.
        answers: how many it took in all.
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
    answers: int
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
        n0: answers that choose the class first; None: 100, and 1 with ``radius``, where another class may take its
            place later.
        alpha: the probability that the certificate of an image is wrong, at most.
        radius: the counting of an image ends when this radius is settled either way; None: all ``n`` are counted.
    """

    n: int = 10_000
    n0: int | None = None
    alpha: float = 0.001
    radius: float | None = None

    def __post_init__(self) -> None:
        expect(
            n=(self.n, Integral),
            n0=(self.n0, Integral, None),
            alpha=(self.alpha, Real),
            radius=(self.radius, Real, None),
        )
        for name, count in (("n", self.n), ("n0", self.chosen_by)):
            if not 1 <= count <= MOST:
                raise ConfigError(f"{name} {count} must lie in 1 .. {MOST}", code="E-certificate-count")
        if not 0.0 < self.alpha < 0.5:
            raise ConfigError(f"alpha {self.alpha} must lie in (0, 0.5)", code="E-certificate-alpha")
        if self.radius is not None and not 0.0 <= self.radius < 100.0:
            raise ConfigError(f"radius {self.radius} must be at least 0", code="E-certificate-radius")

    @property
    def chosen_by(self) -> int:
        """How many answers choose the class."""
        return self.n0 if self.n0 is not None else 100 if self.radius is None else 1

    def tally(self, sigma: float) -> Tally:
        """Counts the answers to an image with certified noise ``sigma``."""
        if self.radius is None:
            return FixedTally(self.chosen_by, self.n, self.alpha)
        return RadiusTally(self.chosen_by, self.n, self.alpha, share_of(self.radius, sigma))


class Certifier:
    """Counts the answers of a bundle's graphs with one preset."""

    def __init__(self, graphs: OpenGraphs, preset: Preset, settings: CertifySettings) -> None:
        """Raises ConfigError with the reason if the preset has no certificate."""
        graphs.bundle.manifest.require_classifier("a certificate")
        if preset.cascade is not None:
            raise ConfigError(
                "a cascade is several smoothed functions: certify it as a whole (Purifier.certify, edgepure certify), "
                "and carry certificates of a single noise only",
                code="E-certificate-cascade",
            )
        self._graphs, self._preset, self._settings = graphs, preset, settings
        self.sigma = graphs.planner.certified_sigma(preset)
        self._plan = graphs.planner.plan(preset)

    def run(
        self,
        images: Float32,
        source: NoiseSource,
        names: Sequence[str],
        on_certificate: Callable[[int, Certificate], object],
        *,
        ids: Sequence[int] | None = None,
    ) -> None:
        """Certify images ``[B, C, H, W]`` in [0, 1].

        Args:
            source: of the noise; image i is image ``ids[i]`` of it, None: i.
            on_certificate: called with (position, certificate) as they are done.
        """
        settings = self._settings
        tallies: dict[int, Tally] = {}
        exact: dict[int, bool] = {}

        def jobs() -> Iterator[Job]:
            for index, image in enumerate(images):
                number = index if ids is None else ids[index]
                levels = self._levels(image, source, number)
                exact[index] = levels is not None
                self._check_precision(exact[index], names[index])
                tallies[index] = tally = settings.tally(self.sigma)
                for vote in range(settings.chosen_by + settings.n):
                    if tally.done:
                        break
                    yield self._job(image, levels, source, number, index, vote)

        def take(index: int, vote: int, label: int) -> None:
            tally = tallies.get(index)
            if tally is None:  # a vote that was under way when the image was settled
                return
            tally.add(vote, label)
            if tally.done:
                del tallies[index]
                on_certificate(index, self._certificate(names[index], tally, exact[index]))

        self._answer(jobs(), take)

    def answers(
        self, images: Float32, source: NoiseSource, votes: range, ids: Sequence[int] | None = None
    ) -> NDArray[np.int64]:
        """Labels ``[images, votes]`` of single purifications. Equal noise makes those of two precisions comparable.

        Raises:
            ConfigError: there are no so many votes, or the precision allows no certificate of an image.
        """
        if votes.stop > 2 * MOST:
            raise ConfigError(
                f"{votes.stop} answers to an image: at most {2 * MOST} have noise of their own; count fewer",
                code="E-certificate-count",
            )
        found = np.full((len(images), len(votes)), -1, np.int64)

        def jobs() -> Iterator[Job]:
            for index, image in enumerate(images):
                number = index if ids is None else ids[index]
                levels = self._levels(image, source, number)
                self._check_precision(levels is not None, str(number))
                for vote in votes:
                    yield self._job(image, levels, source, number, index, vote)

        def take(index: int, vote: int, label: int) -> None:
            found[index, vote - votes.start] = label

        self._answer(jobs(), take)
        return found

    def _answer(self, jobs: Iterator[Job], take: Callable[[int, int, int], None]) -> None:
        """Purify and classify jobs tagged (index, vote), and give (index, vote, label) of each."""
        graphs = self._graphs
        finished: list[tuple[int, int, Float32]] = []  # purified images that wait for the classifier

        def done(job: Job, x: Float32) -> list[Job] | None:
            if job.todo.stop < len(job.plan.rows):
                return [after_mask(graphs, self._preset, job, x)]
            finished.append((*job.tag, np.clip(0.5 * x + 0.5, 0.0, 1.0)))
            if len(finished) >= max(graphs.slots, 64):
                classify()
            return None

        def classify() -> None:
            if finished:
                labels = graphs.logits(np.stack([x for _, _, x in finished])).argmax(axis=1)
                for (index, vote, _), label in zip(finished, labels, strict=True):
                    take(index, vote, int(label))
                finished.clear()

        InFlight(graphs.stepper(graphs.step_graph(self._preset))).run(jobs, done)
        classify()

    def exact(self, image: Float32, source: NoiseSource, number: int) -> bool:
        """Whether an image ``[C, H, W]`` gets noise on the grid of its levels."""
        return self._levels(image, source, number) is not None

    def _levels(self, image: Float32, source: NoiseSource, number: int) -> NDArray[np.int64] | None:
        """The 8-bit levels of an image that gets exact noise."""
        if not self._plan.sees_input_once or not isinstance(self._noise(source, number, 0), StreamNoise):
            return None
        return levels_of(image)

    def _job(
        self, image: Float32, levels: NDArray[np.int64] | None, source: NoiseSource, number: int, index: int, vote: int
    ) -> Job:
        noise = self._noise(source, number, vote)
        if levels is None:
            rows = range(self._plan.mask_from) if self._plan.mask_from else None
            return Job(self._plan, noise, 2.0 * image - 1.0, tag=(index, vote), rows=rows)
        assert isinstance(noise, StreamNoise)
        ref, later = noised_input(levels, noise, self.sigma)
        return Job(self._plan, later, ref, tag=(index, vote))

    def _noise(self, source: NoiseSource, number: int, vote: int) -> RowNoise:
        return source.for_image(self._plan, number, vote, None, self._graphs.image_shape)

    def _check_precision(self, exact: bool, name: str) -> None:
        if self._graphs.precision != "fp32" and not exact:
            raise ConfigError(
                f"no certificate in {self._graphs.precision} for image {name}: its noise would be added in less than "
                "32 bits; give 8-bit images and a preset that sees its input once (method smooth), or use fp32",
                code="E-certificate-precision",
            )

    def _certificate(self, name: str, tally: Tally, exact: bool) -> Certificate:
        found = tally.result()
        sure = found.probability > 0.5
        return Certificate(
            name=name,
            label=found.label if sure else None,
            class_name=self._graphs.classes[found.label] if sure else None,
            radius=self.sigma * _NORMAL.inv_cdf(found.probability) if sure else 0.0,
            sigma=self.sigma,
            probability=found.probability,
            count=found.count,
            samples=found.samples,
            answers=tally.answers,
            exact=exact,
            seconds=tally.ended - tally.started,
        )


def carried(certificate: Certificate, differing: int, pairs: int, beta: float) -> Certificate:
    """The certificate of other graphs, an INT8 variant for example, from that of these and from few answers of both.

    With the same noise the share of answers that differ is at most ``u``, except with probability ``beta``; so the
    class has at least the share ``p - u`` there (arXiv 2305.19521). It is wrong with probability ``alpha + beta`` at
    most.

    Args:
        differing: how many of ``pairs`` fresh answers with equal noise differed.
    """
    p = certificate.probability - (1.0 - lower_bound(pairs - differing, pairs, beta))
    if certificate.label is None or p <= 0.5:
        return replace(certificate, label=None, class_name=None, radius=0.0, probability=max(p, 0.0))
    return replace(certificate, radius=certificate.sigma * _NORMAL.inv_cdf(p), probability=p)
