"""The process of a lane: engines, slots, and a socket to the service whose images it purifies."""

from __future__ import annotations

import gc
import os
import pickle
import select
import signal
import socket
import sys
import time
from concurrent.futures import Future
from functools import partial
from typing import Any

from .. import errors
from ..bundle.bundle import Bundle
from ..errors import BundleError, EdgepureError
from .lane import Lane
from .lane_messages import Begin, Done, Drop, End, Enter, Failed, Inbox, Moves, packed
from .purifier import Purifier
from .submissions import Line, Submission

#: Seconds after which it is told that the slots move, also while no image is done.
_BEAT = 0.25
_PIECE = 1 << 18


def main() -> None:
    """Answer until the service says that it is the end, or is no more. The argument is the socket's descriptor."""
    for number in (signal.SIGINT, signal.SIGTERM):  # a terminal and systemd send them to all: the service decides
        signal.signal(number, signal.SIG_IGN)
    Worker(socket.socket(fileno=int(sys.argv[1]))).run()


def opened(begin: Begin) -> Purifier:
    """The engines.

    Raises:
        EdgepureError: as `edgepure.load`, or the bundle is no longer the one that the service has opened.
    """
    bundle = Bundle.open(begin.path, verify=begin.verify)
    if bundle.content_hash != begin.content_hash:
        raise BundleError(
            f"the bundle {begin.path} is not the one any more that was opened; open it again", code="E-lane-bundle"
        )
    return Purifier(bundle, begin.provider, precision=begin.precision, threads=begin.threads, slots=begin.slots)


class Worker:
    """One thread for everything: what has come is looked at between two calls, so that it waits for no lock."""

    def __init__(self, service: socket.socket) -> None:
        self._service, self._inbox, self._line = service, Inbox(), Line()
        self._futures: dict[int, Future[Any]] = {}
        self._behind, self._ended, self._told = 0, False, 0.0
        self._poll = select.poll()
        self._poll.register(service, select.POLLIN)

    def run(self) -> None:
        """Open what the first message says, then do what the others say."""
        try:
            while (begin := next(self._inbox.put(self._received()), None)) is None:
                pass
            purifier = opened(begin)
            self._lane = Lane(
                purifier.graphs,
                begin.preset,
                begin.monitor,
                self._next,
                lambda: self._line.length() + self._behind,
                lambda error: purifier.explained(error, begin.preset),
                self._beat,
            )
        except Exception as error:
            self._send(Failed(sendable(error)))
            return
        gc.collect()
        gc.freeze()  # what is loaded stays: it need not be looked through for garbage
        self._send(self._moves())
        self._lane.work()
        purifier.close()

    def _next(self, wait: bool) -> Submission | None:
        while (submission := self._line.take()) is None and wait and not self._ended:
            self._receive()
        return submission

    def _beat(self) -> None:
        """Between two calls."""
        if self._poll.poll(0):
            self._receive()
        now = time.monotonic()
        if now - self._told > _BEAT:
            self._told = now
            self._send(self._moves())

    def _receive(self) -> None:
        for message in self._inbox.put(self._received()):
            if isinstance(message, Enter):
                self._enter(message)
            elif isinstance(message, End):
                self._ended = True
            elif isinstance(message, Drop) and (future := self._futures.get(message.number)) is not None:
                future.cancel()

    def _enter(self, it: Enter) -> None:
        try:
            source = pickle.loads(it.source)
        except Exception as error:
            self._send(Done(it.number, sendable(error), self._moves()))
            return
        submission = Submission(it.image, it.name, source, deadline=it.deadline, urgent=it.urgent)
        self._futures[it.number] = submission.future
        submission.future.add_done_callback(partial(self._done, it.number))
        self._behind = it.behind
        self._line.add(submission)

    def _done(self, number: int, future: Future[Any]) -> None:
        self._futures.pop(number, None)
        found: Any = None
        if not future.cancelled():
            error = future.exception()
            found = future.result() if error is None else sendable(error)
        self._told = time.monotonic()
        self._send(Done(number, found, self._moves()))

    def _moves(self) -> Moves:
        counters = self._lane.counters
        return Moves(counters.ticks, counters.rows, counters.jobs, self._lane.pace.row)

    def _received(self) -> bytes:
        try:
            data = self._service.recv(_PIECE)
        except OSError:
            data = b""
        if not data:
            os._exit(1)  # nobody is there to whom an answer could be given
        return data

    def _send(self, message: Any) -> None:
        try:
            self._service.sendall(packed(message))
        except OSError:
            os._exit(1)


def sendable(error: BaseException) -> BaseException:
    """An error as the service can read it: what libraries raise may be of classes that cannot be pickled."""
    if isinstance(error, EdgepureError) and type(error).__module__ == errors.__name__:
        return error
    return RuntimeError(f"{type(error).__name__}: {error}")
