"""Many callers, one purifier: their images share every UNet call, whenever they come.

A thread of its own runs the slots. An image that comes while others are being purified enters the next free slot, so
nobody waits for the end of somebody else's batch.
"""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from numbers import Real
from types import TracebackType
from typing import Any

import numpy as np

from ..errors import BusyError, ConfigError, EdgepureError, ImageError, NotFiniteError, OverdueError
from ..images.load import Resize, load_images
from ..methods.presets import Preset
from ..rows.noise import NoiseSource, noise_source
from ..types import Float32
from ..validation import expect
from .answered_frames import ServedFrame
from .inflight import Counters, InFlight, Job
from .monitor import Monitor
from .pace import Pace
from .purifier import Purifier
from .request import Request
from .submissions import Line, Submission


class Service:
    """Purifies single images for many threads or coroutines at a time, with one preset, and does with them what the
    bundle is for: each result is a `Result`, or of a bundle with a task a `Detection`, `Segmentation` or `Embedding`.

    First come, first served within a class, urgent ones first: whoever has many images delays another by those that
    wait, at most. A result does not depend on who else is served. While there is work the purifier is the service's;
    other calls of it wait.

    >>> with edgepure.load("digits") as purifier, edgepure.Service(purifier) as service:   # doctest: +SKIP
    ...     result = service.submit("seven.png").result(timeout=10)
    ...     result = await asyncio.wrap_future(service.submit("seven.png"))

    Attributes:
        counters: what the slots have done so far.
    """

    def __init__(
        self,
        purifier: Purifier,
        preset: str | Preset | Mapping[str, Any] | None = None,
        *,
        votes: int | None = None,
        waiting: int = 64,
        monitor: Monitor | None = None,
    ) -> None:
        """Start to serve.

        Args:
            purifier: computes; its ``slots`` are the images that share a call. Close it after the service.
            preset: as for `Purifier.classify`. The callers do not choose.
            votes: likewise.
            waiting: images that may wait for a slot; more are refused. An image waits for as long as about
                ``waiting * votes / slots`` purifications take, one after another: choose it by the latency that you
                promise.
            monitor: flags the results, and counts them.

        Raises:
            ConfigError: the preset is unknown, or fits the bundle, its task or the monitor not, or takes the caller's
                mask; the bundle has neither classifier nor task, or one that takes frames and there is a monitor; or
                ``waiting`` is below 1.
            EdgepureError: the purifier is that of a process from which this one was forked.
        """
        expect(purifier=(purifier, Purifier))
        if isinstance(waiting, bool) or not isinstance(waiting, int) or waiting < 1:
            raise ConfigError(
                f"waiting is {waiting!r:.40}, expected at least 1: it is the number of images that may wait",
                code="E-config-waiting",
            )
        manifest = purifier.bundle.manifest
        self._image, self._framed = manifest.task_image, manifest.framed
        if monitor is not None:
            manifest.require_slots("a monitor")
        self._purifier, self._monitor, self._limit = purifier, monitor, waiting
        self._preset, self._head = purifier.preset(preset, votes), purifier.task_head()
        self._graph = purifier.graphs.step_graph(self._preset)
        with purifier.turns.alone():  # what is wrong, and an engine that does not start, is an error now
            purifier.stepper(self._graph)
            self._request([Submission(np.zeros(self._image.shape, np.float32), "", noise_source(0))])
        self.counters = Counters()
        self._line = Line()
        self._pace = Pace(purifier.graphs.unet_calls(self._preset))
        self._running: list[Request[Any] | ServedFrame[Any]] = []  # those with images that have no result yet
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="edgepure-service", daemon=True)
        self._thread.start()
        atexit.register(self.close, drain=False)  # no engine may be at work when the interpreter ends

    # ---- for callers ------------------------------------------------------------------------------------------------

    def submit(
        self,
        image: Any,
        *,
        noise: NoiseSource | int | None = None,
        resize: Resize = False,
        deadline: float | None = None,
        urgent: bool = False,
    ) -> Future[Any]:
        """Give one image to be purified and answered, and get its result later.

        The future can be cancelled at any time: its place in the queue or in the slots is free again then. Its
        callbacks run in the service's thread: they should be quick. It raises NotFiniteError, or the engine's error, if
        the purification fails, and OverdueError if its deadline passes first.

        Args:
            image: one image as `Purifier.classify` takes it; it is read and checked in the calling thread.
            noise: None draws fresh secret noise. A seed is for tests and audits, never for a client to choose: with
                noise that he knows, an attacker gets round the defence.
            resize: resize an image of another size instead of refusing it.
            deadline: from when on nobody wants the result, by `time.monotonic`.
            urgent: it goes before those that are not, four times of five.

        Raises:
            BusyError: as many images are waiting as may; try again later.
            OverdueError: the deadline has passed, or cannot be met at the pace of the last images.
            ImageError: the image cannot be used, or there is more than one.
            EdgepureError: the service has been closed, or this process was forked.
        """
        expect(deadline=(deadline, Real, None), urgent=(urgent, bool))
        self.check_room(deadline, urgent=urgent)  # before anything is decoded: to refuse costs nothing
        loaded = load_images(image, self._image, resize=resize)
        if len(loaded) != 1:
            raise ImageError(f"expected one image, got {len(loaded)}; submit them one by one", code="E-service-image")
        submission = Submission(loaded.images[0], loaded.names[0], noise_source(noise), deadline=deadline)
        with self._changed:
            self.check_room(deadline, urgent=urgent)
            self._line.add(submission, urgent=urgent)
            self._changed.notify_all()
        return submission.future

    def check_room(self, deadline: float | None = None, *, urgent: bool = False) -> None:
        """What `submit` asks before it looks at an image: whether one more would be taken now.

        Raises:
            BusyError, OverdueError, EdgepureError: as `submit`.
        """
        self._purifier.turns.check_process()
        with self._changed:
            if self._closed:
                raise EdgepureError("this service has been closed and takes no more images", code="E-service-closed")
            # those that were cancelled still stand in the line; to count the others takes a moment
            if self._refusal(self._line.length(), deadline, urgent) and (
                refusal := self._refusal(len(self._line), deadline, urgent)
            ):
                if isinstance(refusal, OverdueError) and not self._running and not len(self._line):
                    self._pace.doubted()
                raise refusal

    def _refusal(self, ahead: int, deadline: float | None, urgent: bool) -> EdgepureError | None:
        """Why one more image is not taken where so many wait."""
        if ahead >= self._limit:
            return BusyError(
                f"{self._limit} images are waiting, and no more may; try again later", code="E-service-full"
            )
        if deadline is None:
            return None
        if urgent:
            ahead = self._line.before_urgent()
        left, needed = deadline - time.monotonic(), self._pace.seconds(ahead + len(self._running))
        if left > needed:
            return None
        return OverdueError(
            f"the image has {max(left, 0.0):.1f} seconds, and the {ahead} before it and itself take about "
            f"{needed:.1f}; ask again later, or give it more time",
            code="E-deadline-short",
        )

    @property
    def waiting(self) -> int:
        """Images that wait for a slot.

        Raises:
            EdgepureError: this process was forked from that of the service.
        """
        self._purifier.turns.check_process()  # before the lock, which another thread may have held at the fork
        with self._changed:
            return len(self._line)

    @property
    def busy(self) -> bool:
        """Whether an image is in the slots."""
        return bool(self._running)

    def close(self, *, drain: bool = True) -> None:
        """Accept no more images, finish those that were accepted, and end the thread. May be called again.

        ``drain=False`` cancels those that wait, and finishes only those that are in slots. Not for signal handlers: the
        thread that they interrupt may be in the middle of `submit`.
        """
        if self._purifier.turns.forked:  # the thread is the parent's
            return
        with self._changed:
            self._closed = True
            dropped = [] if drain else [*self._line]
            self._changed.notify_all()
        for submission in dropped:
            submission.future.cancel()
        if threading.current_thread() is not self._thread:
            self._thread.join()
        atexit.unregister(self.close)

    def __enter__(self) -> Service:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(drain=kind is None)

    # ---- the thread -------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while (first := self._next(wait=True)) is not None:
            try:
                with self._purifier.turns.alone():
                    inflight = InFlight(self._purifier.stepper(self._graph))
                    inflight.counters = self.counters
                    self._pace.start()
                    jobs = self._jobs(first, inflight.active)
                    inflight.run(jobs, self._done, self._ticked, self._not_finite, self._dropped)
            except BaseException as error:  # an engine's fault ends those that are inside; the others have their turn
                first.finish(error)
                for request in self._running:
                    request.fail(error)
            self._running.clear()

    def _next(self, *, wait: bool) -> Submission | None:
        """The submission whose turn it is. None: there is none; with ``wait``: there will be none."""
        with self._changed:
            while True:
                while (submission := self._line.pop()) is not None:
                    if submission.start():
                        return submission
                if not wait or self._closed:
                    return None
                self._changed.wait()

    def _jobs(self, first: Submission, active: list[Job]) -> Iterator[Job | None]:
        """Jobs of all submissions in their order, until none is left or somebody else wants the purifier."""
        submission: Submission | None = first
        while True:
            for request in self._running:
                yield from request.more()
            if submission is not None:
                yield from self._jobs_of(submission, active)
            elif self._give_out():
                yield None
            else:
                return
            enters = not self._purifier.turns.wanted and self._joins(len(active))
            submission = self._next(wait=False) if enters else None

    def _joins(self, rows: int, beside: int = 0) -> bool:
        """Whether the next in line enters the slots, where so many rows are active, or waits until they are done.
        ``beside``: images that are about to enter."""
        inside, slots = beside + sum(request.running for request in self._running), self._purifier.slots
        waiting = self._line.length()
        if self._framed or not inside or not waiting or rows >= slots:
            return True  # a frame has calls with empty slots at the end of every row
        votes = min(self._preset.votes.count, slots)
        more = min(votes, slots - rows)
        # if it does not fit whole, its last votes end no earlier, and only those behind it gain
        return self._pace.joins(more, inside, waiting - (more < votes))

    def _jobs_of(self, first: Submission, active: list[Job]) -> Iterator[Job]:
        """Of a submission and of those behind it, as many as go into the slots together: they share the calls of the
        mask and of the classifier, too."""
        together, votes = [first], self._preset.votes.count
        while not self._framed and (len(together) + 1) * votes <= self._purifier.slots:
            if not self._joins(len(active) + len(together) * votes, len(together)):
                break
            more = self._next(wait=False)
            if more is None:
                break
            together.append(more)
        try:
            request = self._request(together)
        except BaseException as error:
            for submission in together:
                submission.finish(error)
            raise
        self._running.append(request)
        yield from self._guarded(request, request.jobs())

    def _request(self, together: list[Submission]) -> Request[Any] | ServedFrame[Any]:
        if self._framed:
            return ServedFrame(self._purifier.graphs, self._preset, self._head, together[0])
        return Request(
            self._purifier.graphs,
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
        self._pace.ticked(rows)
        self._give_out()

    def _give_out(self) -> bool:
        """What the last tick finished is classified, and goes to those who wait for it; whether any is left."""
        self._running = [request for request in self._running if not request.give_out()]
        return bool(self._running)

    def _not_finite(self, job: Job, error: NotFiniteError) -> None:
        job.tag.request.fail(self._purifier.explained(error, self._preset), job.tag.image)
