"""Many callers, one purifier: their images share every UNet call, whenever they come.

A thread of its own runs the slots. An image that comes while others are being purified enters the next free slot, so
nobody waits for the end of somebody else's batch.
"""

from __future__ import annotations

import atexit
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from types import TracebackType
from typing import Any

from ..errors import BusyError, ConfigError, EdgepureError, ImageError, NotFiniteError
from ..images.load import load_images
from ..methods.presets import Preset
from ..rows.noise import NoiseSource, noise_source
from ..types import Float32
from .inflight import Counters, InFlight, Job
from .monitor import Monitor
from .purifier import Purifier
from .request import step_graph
from .results import Result
from .submissions import Group, Ticket


class Service:
    """Purifies and classifies single images for many threads or coroutines at a time, with one preset.

    First come, first served: whoever has many images delays another by those that wait, at most. A result does not
    depend on who else is served. While there is work the purifier is the service's; other calls of it wait.

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
            ConfigError: the preset is unknown, or fits the bundle or the monitor not; or ``waiting`` is below 1.
            EdgepureError: the purifier is that of a process from which this one was forked.
        """
        if waiting < 1:
            raise ConfigError(f"waiting {waiting} must be at least 1: it is the number of images that may wait")
        self._purifier, self._monitor, self._limit = purifier, monitor, waiting
        self._preset = purifier.preset(preset, votes)
        self._graph = step_graph(purifier, self._preset)
        Group(purifier, self._preset, monitor, ())  # what is wrong is an error now
        with purifier.turns.alone():
            purifier.stepper(self._graph)  # and so is an engine that does not start
        self.counters = Counters()
        self._tickets: deque[Ticket] = deque()
        self._inside: dict[Job, Group] = {}  # jobs in slots, and those that go there before any ticket
        self._groups: list[Group] = []  # those with images that have no result yet
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="edgepure-service", daemon=True)
        self._thread.start()
        atexit.register(self.close, drain=False)  # no engine may be at work when the interpreter ends

    # ---- for callers ------------------------------------------------------------------------------------------------

    def submit(self, image: Any, *, noise: NoiseSource | int | None = None, resize: bool = False) -> Future[Result]:
        """Give one image to be purified and classified, and get its result later.

        The future can be cancelled as long as the image waits for a slot. Its callbacks run in the service's thread:
        they should be quick. It raises NotFiniteError, or the engine's error, if the purification fails.

        Args:
            image: one image as `Purifier.classify` takes it; it is read and checked in the calling thread.
            noise: None draws fresh secret noise. A seed is for tests and audits, never for a client to choose: with
                noise that he knows, an attacker gets round the defence.
            resize: resize an image of another size instead of refusing it.

        Raises:
            BusyError: as many images are waiting as may; try again later.
            ImageError: the image cannot be used, or there is more than one.
            EdgepureError: the service has been closed, or this process was forked.
        """
        self._check_room()  # before anything is decoded: to refuse costs nothing
        loaded = load_images(image, self._purifier.bundle.manifest.image, resize=resize)
        if len(loaded) != 1:
            raise ImageError(f"expected one image, got {len(loaded)}; submit them one by one")
        ticket = Ticket(loaded.images[0], loaded.names[0], noise_source(noise), Future())
        with self._changed:
            self._check_room()
            self._tickets.append(ticket)
            self._changed.notify_all()
        return ticket.future

    @property
    def waiting(self) -> int:
        """Images that wait for a slot."""
        with self._changed:
            return sum(not ticket.future.cancelled() for ticket in self._tickets)

    def close(self, *, drain: bool = True) -> None:
        """Accept no more images, finish those that were accepted, and end the thread. May be called again.

        ``drain=False`` cancels those that wait, and finishes only those that are in slots. Not for signal handlers: the
        thread that they interrupt may be in the middle of `submit`.
        """
        if self._purifier.turns.forked:  # the thread is the parent's
            return
        with self._changed:
            self._closed = True
            dropped = [] if drain else list(self._tickets)
            self._changed.notify_all()
        for ticket in dropped:
            ticket.future.cancel()
        if threading.current_thread() is not self._thread:
            self._thread.join()
        atexit.unregister(self.close)

    def __enter__(self) -> Service:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(drain=kind is None)

    def _check_room(self) -> None:
        self._purifier.turns.check_process()
        with self._changed:
            if self._closed:
                raise EdgepureError("this service has been closed and takes no more images")
            if self.waiting >= self._limit:
                raise BusyError(f"{self._limit} images are waiting, and no more may; try again later")

    # ---- the thread -------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while (first := self._next(wait=True)) is not None:
            try:
                with self._purifier.turns.alone():
                    inflight = InFlight(self._purifier.stepper(self._graph))
                    inflight.counters = self.counters
                    inflight.run(self._jobs(first), self._done, lambda rows: self._give_out(), self._not_finite)
            except BaseException as error:  # an engine's fault ends those that are inside; the others have their turn
                first.fail(error)
                for group in self._groups:
                    group.fail(error)
            self._inside.clear()
            self._groups.clear()

    def _next(self, *, wait: bool) -> Ticket | None:
        """The ticket whose turn it is. None: there is none; with ``wait``: there will be none."""
        with self._changed:
            while True:
                while self._tickets:
                    ticket = self._tickets.popleft()
                    if ticket.future.set_running_or_notify_cancel():
                        return ticket
                if not wait or self._closed:
                    return None
                self._changed.wait()

    def _group(self, first: Ticket | None) -> Group | None:
        """``first`` and those behind it, as many as fit into the slots together; None: nobody waits."""
        if first is None:
            return None
        tickets = [first]
        while (len(tickets) + 1) * self._preset.votes.count <= self._purifier.slots:
            more = self._next(wait=False)
            if more is None:
                break
            tickets.append(more)
        try:
            group = Group(self._purifier, self._preset, self._monitor, tickets)
        except BaseException as error:
            for ticket in tickets:
                ticket.fail(error)
            raise
        self._groups.append(group)
        return group

    def _jobs(self, first: Ticket) -> Iterator[Job | None]:
        """Jobs of all tickets in their order, until none is left."""
        group = self._group(first)
        while group is not None or self._inside:
            if group is None:
                yield None
            else:
                yield from self._jobs_of(group)
            group = self._group(self._next(wait=False))
        self._give_out()

    def _jobs_of(self, group: Group) -> Iterator[Job]:
        jobs = group.jobs()
        while True:
            try:
                job = next(jobs, None)
            except Exception as error:  # of the mask's graph
                group.fail(error)
                return
            if job is None:
                return
            self._inside[job] = group
            yield job

    def _done(self, job: Job, x: Float32) -> list[Job]:
        group = self._inside.pop(job)
        try:
            more = group.done(job, x)
        except Exception as error:  # of the classifier's graph
            group.fail(error)
            return []
        self._inside.update(dict.fromkeys(more, group))
        return more

    def _give_out(self) -> None:
        """What the last tick finished is classified, and goes to those who wait for it."""
        self._groups = [group for group in self._groups if not group.give_out()]

    def _not_finite(self, job: Job, error: NotFiniteError) -> None:
        self._inside.pop(job).ticket(job).fail(self._purifier.explained(error, self._preset))
