"""Certificates of a purifier: how often the answers to noised copies agree, and the L2 radius that this proves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..methods.presets import Preset
from ..rows.grid_noise import levels_of, noised_input
from ..rows.noise import NoiseSource, RowNoise, StreamNoise
from ..types import Float32
from .certificate import MOST, NORMAL, Certificate, CertifySettings
from .graphs import OpenGraphs
from .inflight import InFlight, Job
from .masks import after_mask
from .tally import Tally


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

    @property
    def reach(self) -> float:
        """The radius of an image to which all answers agree; 0 if even that one abstains."""
        return self._settings.reach(self.sigma)

    def check(self, images: Float32, source: NoiseSource, names: Sequence[str], ids: Sequence[int]) -> None:
        """Raise ConfigError for the first image that has no certificate in this precision."""
        if self._graphs.precision == "fp32":
            return
        for image, name, number in zip(images, names, ids, strict=True):
            if not self.exact(image, source, number):
                raise ConfigError(
                    f"no certificate in {self._graphs.precision} for image {name}: its noise would be added in less "
                    "than 32 bits; give 8-bit images and a preset that sees its input once (method smooth), or use "
                    "fp32",
                    code="E-certificate-precision",
                )

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
        settings, ids = self._settings, range(len(images)) if ids is None else ids
        self.check(images, source, names, ids)
        tallies: dict[int, Tally] = {}  # of the images under way
        asked: dict[int, int] = {}
        levels: dict[int, NDArray[np.int64] | None] = {}

        def jobs() -> Iterator[Job | None]:
            waiting = iter(range(len(images)))
            while True:
                index = next((i for i, tally in tallies.items() if tally.wants(asked[i])), None)
                if index is not None:
                    vote, asked[index] = asked[index], asked[index] + 1
                    yield self._job(images[index], levels[index], source, ids[index], index, vote)
                elif (index := next(waiting, None)) is not None:
                    asked[index], levels[index] = 0, self._levels(images[index], source, ids[index])
                    tallies[index] = settings.tally(self.sigma)
                elif tallies:
                    yield None
                else:
                    return

        def take(index: int, vote: int, label: int) -> None:
            tally = tallies.get(index)
            if tally is None:  # a vote that was under way when the image was settled
                return
            tally.add(vote, label)
            if tally.done:
                del tallies[index]
                exact = levels.pop(index) is not None
                on_certificate(index, self._certificate(names[index], tally, exact))

        self._answer(jobs(), take)

    def answers(self, images: Float32, source: NoiseSource, votes: range, ids: Sequence[int]) -> NDArray[np.int64]:
        """Labels ``[images, votes]`` of single purifications. Equal noise makes those of two precisions comparable.

        Raises:
            ConfigError: there are no so many votes, or the precision allows no certificate of an image.
        """
        self.check(images, source, [str(number) for number in ids], ids)
        if votes.stop > 2 * MOST:
            raise ConfigError(
                f"{votes.stop} answers to an image: at most {2 * MOST} have noise of their own; count fewer",
                code="E-certificate-count",
            )
        found = np.full((len(images), len(votes)), -1, np.int64)

        def jobs() -> Iterator[Job | None]:
            for index, image in enumerate(images):
                number = ids[index]
                levels = self._levels(image, source, number)
                for vote in votes:
                    yield self._job(image, levels, source, number, index, vote)

        def take(index: int, vote: int, label: int) -> None:
            found[index, vote - votes.start] = label

        self._answer(jobs(), take)
        return found

    def _answer(self, jobs: Iterator[Job | None], take: Callable[[int, int, int], None]) -> None:
        """Purify and classify jobs tagged (index, vote), and give (index, vote, label) of each. None among them: what
        comes next depends on answers that are under way."""
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

        def fed() -> Iterator[Job | None]:
            for job in jobs:
                if job is None:
                    classify()
                yield job

        InFlight(graphs.stepper(graphs.step_graph(self._preset))).run(fed(), done)
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

    def _certificate(self, name: str, tally: Tally, exact: bool) -> Certificate:
        found = tally.result()
        sure = found.probability > 0.5
        return Certificate(
            name=name,
            label=found.label if sure else None,
            class_name=self._graphs.classes[found.label] if sure else None,
            radius=self.sigma * NORMAL.inv_cdf(found.probability) if sure else 0.0,
            sigma=self.sigma,
            probability=found.probability,
            count=found.count,
            samples=found.samples,
            answers=tally.answers,
            exact=exact,
            seconds=tally.ended - tally.started,
        )
