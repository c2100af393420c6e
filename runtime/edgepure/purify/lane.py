"""What runs the slots of a `Service`: it takes the images that wait, and gives their results out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from ..errors import NotFiniteError
from ..methods.presets import Preset
from ..rows.noise import noise_source
from ..types import Float32
from .answered_frames import ServedFrame
from .graphs import OpenGraphs
from .inflight import Counters, InFlight, Job
from .monitor import Monitor
from .pace import Pace
from .request import Request
from .submissions import Submission
from .tasks import head_of


class Lane:
    """Images in the slots of this process.

    Args:
        graphs: whose slots they are.
        preset: what is done with the images.
        monitor: flags and counts.
        take: gives the submission whose turn it is. None: there is none; with True: there will be none.
        waiting: how many there are, with those that nobody waits for any more.
        explained: makes of an error what callers are told.
        beat: called between two calls.

    Attributes:
        graphs: as given.
        counters: what the slots did.
        pace: how fast they have been of late.
        running: requests with images that have no result yet.
    """

    def __init__(
        self,
        graphs: OpenGraphs,
        preset: Preset,
        monitor: Monitor | None,
        take: Callable[[bool], Submission | None],
        waiting: Callable[[], int],
        explained: Callable[[NotFiniteError], NotFiniteError],
        beat: Callable[[], object] | None = None,
    ) -> None:
        self.graphs, self._preset, self._monitor, self._beat = graphs, preset, monitor, beat
        self._take, self._waiting, self._explained = take, waiting, explained
        self._head, self._framed = head_of(graphs), graphs.bundle.manifest.framed
        self._graph = graphs.step_graph(preset)
        with graphs.turns.alone():  # what is wrong, and an engine that does not start, is an error now
            graphs.stepper(self._graph)
            shape = graphs.bundle.manifest.task_image.shape
            self._request([Submission(np.zeros(shape, np.float32), "", noise_source(0))])
        self.counters, self.pace = Counters(), Pace(graphs.unet_calls(preset))
        self.running: list[Request[Any] | ServedFrame[Any]] = []

    def work(self) -> None:
        """Run the slots, in the thread that calls it, until `take` says that there will be nothing more."""
        while (first := self._take(True)) is not None:
            try:
                with self.graphs.turns.alone():
                    self._inflight = inflight = InFlight(self.graphs.stepper(self._graph))
                    inflight.counters, inflight.clock = self.counters, self.pace.clock
                    self.pace.start()
                    jobs = self._jobs(first, inflight.active)
                    inflight.run(jobs, self._done, self._ticked, self._not_finite, self._dropped)
            except BaseException as error:  # an engine's fault ends those that are inside; the others have their turn
                first.finish(error)
                for request in self.running:
                    request.fail(error)
            self.running.clear()

    def _jobs(self, first: Submission, active: list[Job]) -> Iterator[Job | None]:
        """Jobs of all submissions in their order, until none is left or somebody else wants the purifier."""
        submission: Submission | None = first
        while True:
            for request in self.running:
                yield from request.more()
            if submission is not None:
                yield from self._jobs_of(submission, active)
            elif self._give_out():
                yield None
            else:
                return
            enters = not self.graphs.turns.wanted and self._joins(len(active))
            submission = self._take(False) if enters else None

    def _joins(self, rows: int, beside: int = 0) -> bool:
        """Whether the next in line enters the slots, where so many rows are active, or waits until they are done.
        ``beside``: images that are about to enter."""
        inside, slots = beside + sum(request.running for request in self.running), self.graphs.slots
        waiting = self._waiting()
        if self._framed or not inside or not waiting or rows >= slots:
            return True  # a frame has calls with empty slots at the end of every row
        votes = min(self._preset.votes.count, slots)
        more = min(votes, slots - rows)
        # if it does not fit whole, its last votes end no earlier, and only those behind it gain
        return self.pace.joins(more, inside, waiting - (more < votes), self._inflight.left)

    def _jobs_of(self, first: Submission, active: list[Job]) -> Iterator[Job]:
        """Of a submission and of those behind it, as many as go into the slots together: they share the calls of the
        mask and of the classifier, too."""
        together, votes = [first], self._preset.votes.count
        while not self._framed and (len(together) + 1) * votes <= self.graphs.slots:
            if not self._joins(len(active) + len(together) * votes, len(together)):
                break
            more = self._take(False)
            if more is None:
                break
            together.append(more)
        self.pace.entered(len(together))
        try:
            request = self._request(together)
        except BaseException as error:
            for submission in together:
                submission.finish(error)
            raise
        self.running.append(request)
        yield from self._guarded(request, request.jobs())

    def _request(self, together: list[Submission]) -> Request[Any] | ServedFrame[Any]:
        if self._framed:
            return ServedFrame(self.graphs, self._preset, self._head, together[0])
        return Request(
            self.graphs,
            np.stack([s.image for s in together]),
            self._preset,
            self._head,
            [s.source for s in together],
            names=[s.name for s in together],
            ids=[0] * len(together),
            monitor=self._monitor,
            submissions=together,
        )

    def _done(self, job: Job, x: Float32) -> Iterable[Job]:
        request = job.tag.request
        try:
            return self._guarded(request, request.done(job, x) or ())
        except Exception as error:  # of the graph that reads
            request.fail(error)
            return ()

    def _guarded(self, request: Request[Any] | ServedFrame[Any], jobs: Iterable[Job]) -> Iterator[Job]:
        try:
            yield from jobs
        except Exception as error:  # of a graph that is asked between two jobs
            request.fail(error)

    def _dropped(self, job: Job) -> bool:
        dropped: bool = job.tag.request.dropped(job.tag.image)
        return dropped

    def _ticked(self, rows: int) -> None:
        self.pace.ticked(rows, self._inflight.call_seconds)
        self._give_out()
        if self._beat is not None:
            self._beat()

    def _give_out(self) -> bool:
        """What the last tick finished is classified, and goes to those who wait for it; whether any is left."""
        self.running = [request for request in self.running if not request.give_out()]
        return bool(self.running)

    def _not_finite(self, job: Job, error: NotFiniteError) -> None:
        job.tag.request.fail(self._explained(error), job.tag.image)
