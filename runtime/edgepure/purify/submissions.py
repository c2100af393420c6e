"""Images on their way through a `Service`, and the groups in which they go."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np

from ..methods.presets import Preset
from ..rows.noise import NoiseSource
from ..types import Float32
from .inflight import Job
from .monitor import Monitor
from .purifier import Purifier
from .request import Request
from .results import Result


@dataclass(eq=False)
class Ticket:
    """One image on its way: float32 ``[C, H, W]`` in [0, 1], and the future of its result."""

    image: Float32
    name: str
    source: NoiseSource
    future: Future[Result]

    def fail(self, error: BaseException) -> None:
        """Its result is this error, unless it has one."""
        if not self.future.done():
            self.future.set_exception(error)


class Group:
    """Images that waited at the same moment: they share the calls of the mask and of the classifier, too.

    Raises:
        ConfigError: the preset does not fit the monitor.
    """

    def __init__(self, purifier: Purifier, preset: Preset, monitor: Monitor | None, tickets: Sequence[Ticket]) -> None:
        self._tickets = tickets
        images = np.array([ticket.image for ticket in tickets], np.float32).reshape(-1, *purifier.image_shape)
        sources, names = [ticket.source for ticket in tickets], [ticket.name for ticket in tickets]
        self._request = Request(purifier, images, preset, sources, names, [0] * len(tickets), None, monitor)

    def jobs(self) -> Iterator[Job]:
        """The jobs of its images in their order, those aside that have a result already: the error of a former job."""
        return (job for job in self._request.jobs() if not self.ticket(job).future.done())

    def ticket(self, job: Job) -> Ticket:
        """Whose job it is."""
        index: int = job.tag[0]
        return self._tickets[index]

    def done(self, job: Job, x: Float32) -> list[Job]:
        """Take what a job gave; the jobs that follow from it."""
        return [] if self.ticket(job).future.done() else list(self._request.done(job, x) or ())

    def give_out(self) -> bool:
        """Classify what is purified, and give the results out; whether every image has its own now."""
        try:
            self._request.flush()
        except Exception as error:  # of the classifier's graph
            self.fail(error)
        for index, ticket in enumerate(self._tickets):
            result = self._request.result(index)
            if result is not None and not ticket.future.done():
                ticket.future.set_result(result)
        return all(ticket.future.done() for ticket in self._tickets)

    def fail(self, error: BaseException) -> None:
        """All that have no result yet end with this error."""
        for ticket in self._tickets:
            ticket.fail(error)
