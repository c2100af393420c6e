"""The processes of a `Service` with several lanes, and the thread that listens to them."""

from __future__ import annotations

import asyncio
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ..errors import ConfigError, EdgepureError
from ..methods.presets import Preset
from .arguments import warn_of_precision
from .graphs import open_from_bundle
from .lane_messages import End
from .monitor import Monitor
from .process_lane import ProcessLane
from .purifier import Purifier
from .submissions import Line

#: Seconds between two looks at what nobody tells of: a cancelled future, a deadline that has passed.
_LOOK = 0.25
#: Seconds in which processes without an image end that were told to.
_LAST = 10.0


class _Calling(threading.local):
    """How often a thread is at present in what may call callbacks of futures."""

    depth = 0


class Crew:
    """Gives the images that wait to the process that has least to do.

    Args:
        count: of processes.
        purifier: what they open likewise.
        preset: what is done with the images.
        monitor: flags and counts.
        line: those that wait.
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
        line: Line,
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
        self._line, self._lock = line, lock
        self._selector = selectors.DefaultSelector()
        self._woken, self._wake = socket.socketpair()
        self._wake.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._closing, self._over, self._ending = False, threading.Event(), threading.Lock()
        self._calling, self._looked = _Calling(), 0.0
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
        self._start()

    def hand_out(self) -> None:
        """Give those that wait to the lanes that have room."""
        with self._callbacks():
            while free := [lane for lane in self.lanes if lane.room]:
                submission = self._line.take()
                if submission is None:
                    return
                lane = min(free, key=lambda lane: len(lane.running))
                lane.give(submission, self._line.length())
                if lane.clogged:
                    self._call()

    def keep_listening(self) -> None:
        """Have a thread listen again if the loop that did was closed, of which nobody is told. With the lock held."""
        if self._loop is not None and self._loop.is_closed():
            self._loop = None
            self._start()

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let an event loop listen, in whose thread this is called, and no thread of ours: two threads of one process
        wait for each other at every call of the system."""
        if self._closing:  # whoever listens goes on until the end
            return
        if self._loop is not None and not self._loop.is_closed():
            self._detach()
        self._loop = loop
        self._call()
        self._thread.join()
        if not self._over.is_set():
            loop.add_reader(self._selector.fileno(), self._come)
            self._look()

    def end(self) -> None:
        """End the processes when all is done that was taken, and wait for that. Not with the lock held."""
        self._closing = True
        self._call()
        if self._calling.depth:  # a callback: whoever listens goes on until the end
            return
        while not self._over.is_set():
            if self._heeded():
                self._over.wait(_LOOK)
                continue
            with self._ending:
                if not self._heeded() and not self._over.is_set():
                    if self._loop is not None and not self._loop.is_closed():
                        self._detach()
                    self._loop = None
                    self._listen()
        self._thread.join()

    # ---- listening -------------------------------------------------------------------------------------------------

    def _call(self) -> None:
        """Have whoever listens look what there is to do."""
        with suppress(OSError):  # it has been called already, or has ended
            self._wake.send(b"\0")

    def _heeded(self) -> bool:
        """Whether somebody else listens."""
        loop = self._loop
        return self._thread.is_alive() or (loop is not None and loop.is_running() and not _running(loop))

    def _start(self) -> None:
        """Have a thread listen."""
        self._thread = threading.Thread(target=self._listen, name="edgepure-service", daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while not (self._closing and self._idle()):
            if self._loop is not None:
                return
            self._step(_LOOK)
        self._finish()

    def _come(self) -> None:
        """In the loop: something has come."""
        self._step(0.0)
        if self._closing and self._idle():
            with self._ending:
                self._detach()
                self._start()  # it waits for the processes, and the loop does not

    def _look(self) -> None:
        assert self._loop is not None
        self._timer = self._loop.call_later(_LOOK, self._look)
        self._come()

    def _detach(self) -> None:
        assert self._loop is not None
        self._loop.remove_reader(self._selector.fileno())
        self._timer.cancel()
        self._loop = None

    @contextmanager
    def _callbacks(self) -> Iterator[None]:
        """Around what may call callbacks of futures: they cannot wait for what they hold up."""
        self._calling.depth += 1
        try:
            yield
        finally:
            self._calling.depth -= 1

    def _step(self, seconds: float) -> None:
        with self._callbacks():
            if time.monotonic() - self._looked > _LOOK:
                self._looked = time.monotonic()
                with self._lock:
                    for submission in self._line:
                        submission.over()
                for lane in self.lanes:
                    lane.drop()
            for lane in self._heard(seconds):
                self._selector.unregister(lane.socket)
                with self._lock:
                    lane.up = False  # nothing is given to it from now on
                lane.lost()
            for lane in self.lanes:
                if lane.due is not None and time.monotonic() >= lane.due:
                    try:
                        lane.start()
                    except OSError as error:  # too many files are open, say
                        lane.later(error)
                    else:
                        self._register(lane)
            with self._lock:
                self.hand_out()

    def _finish(self) -> None:
        end, told = time.monotonic() + _LAST, [lane for lane in self.lanes if lane.up]  # the others have nothing to do
        for lane in told:
            lane.send(End())
        for lane in told:
            with suppress(subprocess.TimeoutExpired):
                lane.process.wait(max(end - time.monotonic(), 0.0))
        self._stop()
        self._over.set()

    def _idle(self) -> bool:
        """Whether nothing is left that could be done, and that somebody waits for."""
        with self._lock, self._callbacks():
            if all(lane.due is not None for lane in self.lanes):  # no process is there to do it
                while (submission := self._line.take()) is not None:
                    submission.finish(EdgepureError("this service has been closed", code="E-service-closed"))
            inside = [submission for lane in self.lanes for submission in lane.running.values()]
            return all(submission.over() for submission in [*self._line, *inside])

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
