"""A lane in a process of its own: engines there and clients here do not wait for one lock of Python.

The images that wait stay in the service's line. A process gets as many as its slots hold, and a few that are at hand
when one of them is free; `lane_worker` is its program.
"""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
import threading
import time
import weakref
from contextlib import suppress
from dataclasses import replace
from itertools import count
from typing import Any

from ..errors import EdgepureError
from ..methods.presets import Preset
from .inflight import Counters
from .lane_messages import Begin, Done, Drop, Enter, Failed, Inbox, Moves, packed
from .monitor import Monitor
from .pace import Pace
from .purifier import Purifier
from .results import Purified
from .submissions import Submission

#: Images that a process has beyond those in its slots.
_AT_HAND = 2
#: Seconds until a process that did not start is started again, at first and at most: each time it is twice as long.
_AGAIN, _RARELY = 1.0, 60.0
_PIECE = 1 << 18

_PROGRAM = "import sys; sys.path[:] = sys.argv[2:]; from edgepure.purify.lane_worker import main; main()"
#: Of all lanes.
_SOCKETS: weakref.WeakSet[socket.socket] = weakref.WeakSet()


def _forked() -> None:
    """A process that was forked from this one has no lanes: with its copies of the sockets, theirs would outlive us."""
    for one in list(_SOCKETS):
        one.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


class ProcessLane:
    """A process with slots and engines of its own. One that ends without being told to is started again: the images
    in it are lost, with an error for whoever waits for them.

    Nothing here waits: what the socket does not take at once is sent by `flush`, when there is room.

    Args:
        purifier: what the process opens likewise.
        preset: what is done with the images.
        monitor: flags there, and counts here.

    Attributes:
        counters: what its slots did.
        pace: how fast they have been of late.
        running: images that have no result yet, by their number.
        up: everything is open, and images can be given.
        due: by `time.monotonic`, when it is to be started again; None: it runs.
        process, socket: those of now.
        failed: why it could not begin.
    """

    def __init__(self, purifier: Purifier, preset: Preset, monitor: Monitor | None) -> None:
        graphs, bundle = purifier.graphs, purifier.bundle
        verify = bool(bundle.verified_hashes)
        self._begin = packed(Begin(
            bundle.path, bundle.content_hash, verify, graphs.provider, graphs.precision, graphs.threads, graphs.slots,
            preset, monitor,
        ))  # fmt: skip
        self._monitor = monitor
        extra = None if monitor is None else monitor.probe_of(preset)
        self._monitor_calls = 0 if extra is None else extra.unet_calls
        # a frame has the slots to itself
        self._most = 1 if bundle.manifest.framed else max(1, graphs.slots // preset.votes.count) + _AT_HAND
        self.counters, self.pace = Counters(), Pace(graphs.unet_calls(preset))
        self.running: dict[int, Submission] = {}
        self._dropped: set[int] = set()
        self._numbers, self._lock = count(), threading.Lock()
        self._pause, self._before = _AGAIN, Counters()  # what the processes before this one did
        self.due: float | None = None
        self.failed: BaseException | None = None
        self.start()

    def start(self) -> None:
        """Start the process; its first message says that it is up.

        Raises:
            OSError: the system has no room for it.
        """
        ours, theirs = socket.socketpair()
        places = [os.path.abspath(place) for place in sys.path]
        try:
            with theirs:
                self.process = subprocess.Popen(
                    [sys.executable, "-c", _PROGRAM, str(theirs.fileno()), *places],
                    stdin=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                )
        except BaseException:
            ours.close()
            raise
        ours.setblocking(False)
        _SOCKETS.add(ours)
        self.socket, self._inbox, self._pending = ours, Inbox(), bytearray(self._begin)
        self.up, self._was_up, self.due, self.failed = False, False, None, None
        self.flush()

    @property
    def room(self) -> bool:
        """Whether it takes another image."""
        return self.up and len(self.running) < self._most

    def give(self, submission: Submission, behind: int) -> None:
        """Have an image done, which ``behind`` others wait for."""
        number, s = next(self._numbers), submission
        try:
            source = pickle.dumps(s.source, pickle.HIGHEST_PROTOCOL)
        except Exception as error:  # of a class that cannot be pickled
            s.finish(error)
            return
        with self._lock:
            self.running[number] = s
        self.send(Enter(number, s.image, s.name, source, s.deadline, s.urgent, behind))

    def send(self, message: Any) -> None:
        """Send a message, or what the socket takes of it now."""
        data = packed(message)
        with self._lock:
            self._pending += data
        self.flush()

    def flush(self) -> None:
        """Send what is left, as far as the socket takes it."""
        with self._lock, suppress(OSError):  # a process that has ended is noticed where it is listened to
            while self._pending:
                del self._pending[: self.socket.send(self._pending)]

    @property
    def clogged(self) -> bool:
        """Whether something is left to `flush`."""
        return bool(self._pending)

    def receive(self) -> bool:
        """Take what the process says; false if it has ended."""
        try:
            data = self.socket.recv(_PIECE)
        except BlockingIOError:
            return True
        except OSError:
            return False
        for message in self._inbox.put(data):
            if isinstance(message, Failed):
                self.failed = message.error
                return False
            self.up = self._was_up = True
            self._pause = _AGAIN
            self._moved(message.moves if isinstance(message, Done) else message)
            if isinstance(message, Done):
                self._answered(message.number, message.found)
        self.drop()
        return bool(data)

    def _moved(self, moves: Moves) -> None:
        before, self.pace.row = self._before, moves.row or self.pace.row
        self.counters.ticks, self.counters.rows = before.ticks + moves.ticks, before.rows + moves.rows
        self.counters.jobs = before.jobs + moves.jobs

    def _answered(self, number: int, found: Purified | BaseException | None) -> None:
        with self._lock:
            submission = self.running.pop(number, None)
            self._dropped.discard(number)
        if submission is None:
            return
        if isinstance(found, Purified) and self._monitor is not None and found.p_value is not None and not found.held:
            self._monitor.see(found.p_value, self._monitor_calls)
        if found is None:
            submission.over()
        else:
            submission.finish(found)

    def drop(self) -> None:
        """Tell the process of those that nobody waits for any more."""
        with self._lock:
            inside = [(n, s) for n, s in self.running.items() if n not in self._dropped]
        for number, submission in inside:
            if submission.over():
                self._dropped.add(number)
                self.send(Drop(number))

    def lost(self) -> None:
        """The process has ended: so have its images. It is started again after a while (`due`)."""
        self.stop()
        self._before = replace(self.counters)
        if self._was_up:
            self.due = time.monotonic()
        else:
            self.later(self.failed)

    def later(self, failed: BaseException | None) -> None:
        """It could not begin: it is tried again after a while."""
        self.failed, self.due = failed, time.monotonic() + self._pause
        self._pause = min(2.0 * self._pause, _RARELY)

    def stop(self) -> None:
        """End the process at once; whoever waits for an image of it gets an error."""
        self.up = False
        self.process.kill()
        self.process.wait()
        self.socket.close()
        for number in list(self.running):
            self._answered(number, self.ended())

    def ended(self) -> EdgepureError:
        """What whoever waits for its images is told."""
        return EdgepureError(
            f"the process of a lane ended before it had answered (exit status {self.process.poll()}); it is started "
            "again: ask once more, and look whether there is enough memory",
            code="E-lane-ended",
        )
