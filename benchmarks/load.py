"""Clients of a server: as fast as it answers (closed loop), and at random whether it answers or not (open loop).

They stand for other machines, so they take as little of this one as they can: one thread on epoll, requests that are
ready to be sent, connections that are kept, and a higher priority than the server's.
"""

from __future__ import annotations

import gc
import select
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import httptools
import numpy as np

#: Seconds after which an answer is not waited for any more.
PATIENCE = 60.0


class NotStartedError(Exception):
    """A server does not answer."""


class _Connection:
    """One that is kept: one request at a time."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.parser = httptools.HttpResponseParser(self)
        self.index = -1
        self.complete = self.kept = False

    def send(self, index: int, request: bytes) -> None:
        """A request, which is small enough to leave at once."""
        self.index, self.complete = index, False
        self.socket.sendall(request)

    def on_message_complete(self) -> None:
        """httptools calls it."""
        self.complete, self.kept = True, self.parser.should_keep_alive()  # it cannot be asked later

    def read(self) -> int | None:
        """The status of the answer, once all of it is there; 0 if the connection has ended before."""
        try:
            data = self.socket.recv(1 << 16)
            if data:
                self.parser.feed_data(data)
        except (OSError, httptools.HttpParserError):
            data = b""
        if not data:
            return 0
        return self.parser.get_status_code() if self.complete else None


class Clients:
    """Requests of one process over as many connections as there are requests under way."""

    def __init__(self, url: str, bodies: list[bytes]) -> None:
        found = urlsplit(url)
        assert found.hostname is not None and found.port is not None
        self._address = found.hostname, found.port
        head = f"POST {found.path} HTTP/1.1\r\nHost: {found.netloc}\r\nContent-Type: application/json\r\n"
        self._requests = [f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body for body in bodies]
        self._epoll = select.epoll()
        self._busy: dict[int, _Connection] = {}
        self._free: list[_Connection] = []

    def wait_for_server(self) -> None:
        """Return when a first request was answered.

        Raises:
            NotStartedError: none was, within two minutes.
        """
        end = time.perf_counter() + 120.0
        while time.perf_counter() < end:
            try:
                self._send(0)
                while self._busy:
                    if 200 in [status for _, status in self._answers(1.0)]:
                        return
            except OSError:
                pass  # not listening yet
            time.sleep(0.2)
        raise NotStartedError("the server did not answer within two minutes")

    def closed_loop(self, clients: int, seconds: float) -> float:
        """Answers a second while each of ``clients`` sends its next request when its last was answered."""
        count = asked = 0
        with _unhindered():
            began = now = time.perf_counter()
            while now < began + seconds or self._busy:
                while now < began + seconds and len(self._busy) < clients:
                    self._send(asked)
                    asked += 1
                count += sum(status == 200 for _, status in self._answers(1.0))
                now = time.perf_counter()
        return count / (now - began)

    def open_loop(self, rate: float, requests: int, seed: int) -> dict[str, float]:
        """Milliseconds from the time a request was due to its answer, of those that were answered; their share; and by
        how much the 99th of 100 requests left after it was due."""
        due = np.cumsum(np.random.default_rng(seed).exponential(1 / rate, requests))
        took, late, status = np.zeros(requests), np.zeros(requests), np.zeros(requests, int)
        times, following = due.tolist(), 0
        with _unhindered():
            began = time.perf_counter()
            while following < requests or self._busy:
                now = time.perf_counter() - began
                while following < requests and times[following] <= now:
                    self._send(following)
                    late[following] = time.perf_counter() - began - times[following]
                    following += 1
                left = times[following] - (time.perf_counter() - began) if following < requests else 1.0
                for index, found in self._answers(max(left, 0.0)):
                    took[index], status[index] = time.perf_counter() - began - times[index], found
                if now > times[-1] + PATIENCE:
                    self._give_up()
        answered = 1e3 * took[status == 200]
        p50, p99 = np.percentile(answered, (50, 99)) if len(answered) else (np.nan, np.nan)
        return {
            "p50": float(p50),
            "p99": float(p99),
            "answered": len(answered) / requests,
            "late": float(1e3 * np.percentile(late, 99)),
        }

    def close(self) -> None:
        """End all connections."""
        self._give_up()
        for connection in self._free:
            connection.socket.close()
        self._epoll.close()

    def _send(self, index: int) -> None:
        if self._free:
            connection = self._free.pop()
        else:
            connection = _Connection(self._address)
            self._epoll.register(connection.socket, select.EPOLLIN)
        self._busy[connection.socket.fileno()] = connection
        connection.send(index, self._requests[index % len(self._requests)])

    def _answers(self, seconds: float) -> Iterator[tuple[int, int]]:
        """Index and status of what was answered, once something comes, or after so long: epoll itself counts in ms."""
        if not select.select([self._epoll], [], [], seconds)[0]:
            return
        for number, _ in self._epoll.poll(0):
            connection = self._busy.get(number)
            status = 0 if connection is None else connection.read()
            if status is None:
                continue
            if connection is None or not status or not connection.kept:
                self._forget(number, connection)
            else:
                self._free.append(self._busy.pop(number))
            if connection is not None:
                yield connection.index, status

    def _forget(self, number: int, connection: _Connection | None) -> None:
        """A connection that has ended, whether its request was answered or it was idle."""
        self._busy.pop(number, None)
        if connection is None:
            connection = next(c for c in self._free if c.socket.fileno() == number)
            self._free.remove(connection)
        self._epoll.unregister(number)
        connection.socket.close()

    def _give_up(self) -> None:
        """Nobody waits for the answers that are not there."""
        for number, connection in list(self._busy.items()):
            self._forget(number, connection)


@contextmanager
def _unhindered() -> Iterator[None]:
    """Without pauses of our own, which would be taken for the server's."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
