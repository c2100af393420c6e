"""Many callers, one purifier: their images share every UNet call, whenever they come.

A thread runs the slots (`lane`), or several processes do (`crew`). An image that comes while others are being purified
enters the next free slot, so nobody waits for the end of somebody else's batch.
"""

from __future__ import annotations

import asyncio
import atexit
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from numbers import Real
from types import TracebackType
from typing import Any

from ..errors import BusyError, ConfigError, EdgepureError, ImageError, NotFiniteError, OverdueError
from ..images.load import Resize, load_images
from ..methods.presets import Preset
from ..rows.noise import NoiseSource, noise_source
from ..validation import expect
from .arguments import check_lanes
from .crew import Crew
from .inflight import Counters
from .lane import Lane
from .monitor import Monitor
from .process_lane import ProcessLane
from .purifier import Purifier
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
    """

    def __init__(
        self,
        purifier: Purifier,
        preset: str | Preset | Mapping[str, Any] | None = None,
        *,
        votes: int | None = None,
        waiting: int = 64,
        monitor: Monitor | None = None,
        lanes: int = 1,
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
            lanes: that compute side by side, each with ``slots`` of its own. One is a thread of this process; several
                are processes, each with its own Python and graphs and their memory. They are for engines whose calls
                use one core (``threads=1``) where there are several: more is answered, and a single image takes as
                long. A process that ends unasked is started again; the images in it get an error (``E-lane-ended``).

        Raises:
            ConfigError: the preset is unknown, or fits the bundle, its task or the monitor not, or takes the caller's
                mask; the bundle has neither classifier nor task, or one that takes frames and there is a monitor;
                ``waiting`` or ``lanes`` is out of range; or there are several lanes on Windows, or with an opener of
                engines of the purifier's own, which cannot go to another process.
            EdgepureError: the purifier is that of a process from which this one was forked, or a lane's process cannot
                begin.
        """
        expect(purifier=(purifier, Purifier))
        if isinstance(waiting, bool) or not isinstance(waiting, int) or waiting < 1:
            raise ConfigError(
                f"waiting is {waiting!r:.40}, expected at least 1: it is the number of images that may wait",
                code="E-config-waiting",
            )
        check_lanes(lanes)
        manifest = purifier.bundle.manifest
        self._image = manifest.task_image
        if monitor is not None:
            manifest.require_slots("a monitor")
        self._purifier, self._limit = purifier, waiting
        chosen = purifier.preset(preset, votes)
        self._line, self._lock, self._closed = Line(), threading.RLock(), False
        self._come = threading.Condition(self._lock)
        self._crew: Crew | None = None
        self._thread: threading.Thread | None = None
        self._lanes: list[Lane] | list[ProcessLane]

        def explained(error: NotFiniteError) -> NotFiniteError:
            return purifier.explained(error, chosen)

        if lanes > 1:
            self._crew = Crew(lanes, purifier, chosen, monitor, self._line, self._lock)
            self._lanes = self._crew.lanes
        else:
            lane = Lane(purifier.graphs, chosen, monitor, self._next, self._line.length, explained)
            self._lanes = [lane]
            self._thread = threading.Thread(target=lane.work, name="edgepure-service", daemon=True)
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
        source = noise_source(noise)
        submission = Submission(loaded.images[0], loaded.names[0], source, deadline=deadline, urgent=urgent)
        with self._lock:
            self.check_room(deadline, urgent=urgent)
            self._line.add(submission)
            if self._crew is None:
                self._come.notify()
            else:
                self._crew.hand_out()
        return submission.future

    def check_room(self, deadline: float | None = None, *, urgent: bool = False) -> None:
        """What `submit` asks before it looks at an image: whether one more would be taken now.

        Raises:
            BusyError, OverdueError, EdgepureError: as `submit`.
        """
        self._purifier.turns.check_process()
        with self._lock:
            if self._closed:
                raise EdgepureError("this service has been closed and takes no more images", code="E-service-closed")
            if self._crew is not None:
                self._crew.keep_listening()
            # those that were cancelled still stand in the line; to count the others takes a moment
            if self._refusal(self._line.length(), deadline, urgent) and (
                refusal := self._refusal(len(self._line), deadline, urgent)
            ):
                if isinstance(refusal, OverdueError) and not self.busy and not len(self._line):
                    for lane in self._lanes:
                        lane.pace.doubted()
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
        before = (ahead + sum(len(lane.running) for lane in self._lanes)) / len(self._lanes)
        left, needed = deadline - time.monotonic(), self._seconds(before)
        if left > needed:
            return None
        return OverdueError(
            f"the image has {max(left, 0.0):.1f} seconds, and the {ahead} before it and itself take about "
            f"{needed:.1f}; ask again later, or give it more time",
            code="E-deadline-short",
        )

    def _seconds(self, before: float) -> float:
        """Until an image with so many before it in every lane is done, by the fastest lane of those that are measured:
        one that had a slow start and nothing to do since says nothing of the others."""
        return min(filter(None, (lane.pace.seconds(before) for lane in self._lanes)), default=0.0)

    @property
    def waiting(self) -> int:
        """Images that wait for a slot.

        Raises:
            EdgepureError: this process was forked from that of the service.
        """
        self._purifier.turns.check_process()  # before the lock, which another thread may have held at the fork
        with self._lock:
            return len(self._line)

    @property
    def busy(self) -> bool:
        """Whether an image is in the slots."""
        return any(lane.running for lane in self._lanes)

    @property
    def moves(self) -> list[tuple[int, bool]]:
        """Of every lane the calls that it has made, and whether images are in its slots."""
        return [(lane.counters.ticks, bool(lane.running)) for lane in self._lanes]

    @property
    def counters(self) -> Counters:
        """What the slots have done so far."""
        found = [lane.counters for lane in self._lanes]
        return Counters(*(sum(getattr(one, name) for one in found) for name in ("ticks", "rows", "jobs")))

    @property
    def processes(self) -> list[int]:
        """The processes of its lanes; none where a thread of this one is the lane."""
        return [lane.process.pid for lane in self._lanes if isinstance(lane, ProcessLane)]

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have an event loop listen to the processes of several lanes, in place of a thread: call it in the loop's
        thread. Results are given out there then, and sooner, for the loop and the thread need not take turns.

        A thread listens again from the first `submit` on after the loop was closed.

        Raises:
            EdgepureError: this process was forked from that of the service.
        """
        self._purifier.turns.check_process()
        if self._crew is not None:
            self._crew.attach(loop)

    def close(self, *, drain: bool = True) -> None:
        """Accept no more images, finish those that were accepted, and end the thread. May be called again.

        ``drain=False`` cancels those that wait, and finishes only those that are in slots. Not for signal handlers: the
        thread that they interrupt may be in the middle of `submit`.
        """
        if self._purifier.turns.forked:  # the thread is the parent's
            return
        with self._lock:
            self._closed = True
            dropped = [] if drain else [*self._line]
            self._come.notify_all()
        for submission in dropped:
            submission.future.cancel()
        if self._crew is not None:
            self._crew.end()
        elif self._thread is not None and threading.current_thread() is not self._thread:
            self._thread.join()
        atexit.unregister(self.close)

    def __enter__(self) -> Service:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(drain=kind is None)

    # ---- for its lanes -----------------------------------------------------------------------------------------------

    def _next(self, wait: bool) -> Submission | None:
        """The submission whose turn it is. None: there is none; with ``wait``: there will be none."""
        with self._lock:
            while (submission := self._line.take()) is None and wait and not self._closed:
                self._come.wait()
            return submission
