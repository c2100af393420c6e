"""The processes of a `Service` with several lanes, and the thread that listens to them."""

from __future__ import annotations

import asyncio
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from ..errors import ConfigError, EdgepureError
from ..methods.presets import Preset
from .arguments import warn_of_precision
from .graphs import open_from_bundle
from .lane_messages import End
from .monitor import Monitor
from .process_lane import ProcessLane
from .purifier import Purifier
from .submissions import Submission

#: Seconds between two looks at what nobody tells of, such as the future of an image that its caller has cancelled.
_LOOK = 0.25
#: Seconds in which a process without an image ends that was told to.
_LAST = 10.0


class Crew:
    """Gives the images that wait to the process that has least to do.

    Args:
        count: of processes.
        purifier: what they open likewise.
        preset: what is done with the images.
        monitor: flags and counts.
        take: the submission whose turn it is; None: there is none.
        waiting: how many there are.
        lock: of the service; held where `hand_out` is called.

    Attributes:
        lanes: the processes.

    Raises:
        ConfigError: the purifier's engines cannot be opened in another process, or as `edgepure.Service`.
        EdgepureError: a process could not begin.
    """

    def __init__(
        self,
        count: int,
        purifier: Purifier,
        preset: Preset,
        monitor: Monitor | None,
        take: Callable[[], Submission | None],
        waiting: Callable[[], int],
        lock: threading.RLock,
    ) -> None:
        if sys.platform.startswith("win"):
            raise ConfigError(
                "several lanes are processes, which are not started on Windows; use one lane",
                code="E-config-lanes-system",
            )
        if purifier.graphs.opens is not open_from_bundle:
            raise ConfigError(
                "this purifier has its own opener of engines, which cannot go to another process; use one lane",
                code="E-config-lanes-opener",
            )
        purifier.turns.check_process()
        warn_of_precision(preset, purifier.precision)
        self._take, self._waiting, self._lock = take, waiting, lock
        self._selector = selectors.DefaultSelector()
        self._woken, self._wake = socket.socketpair()
        self._wake.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._closing, self._handed_over, self._inside = False, False, 0
        self._over = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.lanes: list[ProcessLane] = []
        try:
            for _ in range(count):
                self.lanes.append(ProcessLane(purifier, preset, monitor))
            for lane in self.lanes:
                self._register(lane)
            while not all(lane.up for lane in self.lanes):
                for lane in self._heard(None):
                    raise lane.failed or lane.ended()
        except BaseException:
            self._stop()
            raise
        self._thread = threading.Thread(target=self._listen, name="edgepure-service", daemon=True)
        self._thread.start()

    def hand_out(self) -> None:
        """Give those that wait to the lanes that have room."""
        while free := [lane for lane in self.lanes if lane.room]:
            submission = self._take()
            if submission is None:
                return
            lane = min(free, key=lambda lane: len(lane.running))
            lane.give(submission, self._waiting())
            if lane.clogged:
                self._call()

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let an event loop listen, in whose thread this is called, and no thread of ours: two threads of one process
        wait for each other at every call of the system."""
        self._handed_over = True
        self._call()
        self._thread.join()
        self._loop = loop
        loop.add_reader(self._selector.fileno(), self._come)
        self._look()

    def end(self) -> None:
        """End the processes when all is done that was taken, and wait for that. Not with the lock held."""
        self._closing = True
        if self._inside == threading.get_ident():  # of a callback: whoever called it goes on until the end
            return
        self._call()
        if self._loop is None:
            self._thread.join()
            return
        here = _running(self._loop)
        while not here and self._loop.is_running():
            if self._over.wait(_LOOK):
                return
        if not self._over.is_set():
            if here:
                self._detach()
            self._listen()

    # ---- listening -------------------------------------------------------------------------------------------------

    def _call(self) -> None:
        """Have whoever listens look what there is to do."""
        with suppress(OSError):  # it has been called already, or has ended
            self._wake.send(b"\0")

    def _listen(self) -> None:
        while not (self._closing and self._idle()):
            if self._handed_over and self._loop is None:
                return
            self._step(_LOOK)
        self._finish()

    def _come(self) -> None:
        """In the loop: something has come."""
        self._step(0.0)
        if self._closing and self._idle():
            self._detach()
            self._finish()

    def _look(self) -> None:
        assert self._loop is not None
        self._timer = self._loop.call_later(_LOOK, self._look)
        self._come()

    def _detach(self) -> None:
        assert self._loop is not None
        self._loop.remove_reader(self._selector.fileno())
        self._timer.cancel()

    def _step(self, seconds: float) -> None:
        self._inside = threading.get_ident()
        try:
            for lane in self._heard(seconds):
                self._selector.unregister(lane.socket)
                with self._lock:
                    lane.up = False  # nothing is given to it from now on
                lane.lost()
            for lane in self.lanes:
                if lane.due is not None and time.monotonic() >= lane.due:
                    lane.start()
                    self._register(lane)
            with self._lock:
                self.hand_out()
        finally:
            self._inside = 0

    def _finish(self) -> None:
        for lane in self.lanes:
            lane.send(End())
        for lane in self.lanes:
            with suppress(subprocess.TimeoutExpired):
                lane.process.wait(_LAST)
        self._stop()
        self._over.set()

    def _idle(self) -> bool:
        """Whether nothing is left that could be done."""
        with self._lock:
            if all(lane.due is not None for lane in self.lanes):  # no process is there to do it
                while (submission := self._take()) is not None:
                    submission.finish(EdgepureError("this service has been closed", code="E-service-closed"))
            return not self._waiting() and not any(lane.running for lane in self.lanes)

    def _heard(self, seconds: float | None) -> list[ProcessLane]:
        """Take what the processes say, and wait so long for it; those of them that have ended."""
        ended = []
        for key, events in self._selector.select(seconds):
            lane: ProcessLane | None = key.data
            if lane is None:
                self._woken.recv(1 << 10)
                continue
            if events & selectors.EVENT_WRITE:
                lane.flush()
            if events & selectors.EVENT_READ and not lane.receive():
                ended.append(lane)
        for lane in self.lanes:
            if lane.due is None and lane not in ended:
                wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if lane.clogged else 0)
                if self._selector.get_key(lane.socket).events != wanted:
                    self._selector.modify(lane.socket, wanted, lane)
        return ended

    def _register(self, lane: ProcessLane) -> None:
        self._selector.register(lane.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, lane)

    def _stop(self) -> None:
        for lane in self.lanes:
            lane.stop()
        self._selector.close()
        self._woken.close()
        self._wake.close()


def _running(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether it is the one that runs this."""
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False
