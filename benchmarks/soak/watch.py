"""Watches a soak: what ready says beside what it should say, faults under way, and complaints."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from .server import Served

#: Between two looks. A look that comes much later than this was stopped itself, and so was the server, perhaps.
EVERY, LATE, PATIENCE = 0.25, 3.0, 10.0


@dataclass
class Spell:
    """A fault under way, from ``began`` to ``ended`` (by `time.monotonic`; infinite while it lasts)."""

    kind: str
    began: float
    ended: float = float("inf")


@dataclass
class Watch:
    """Asks the server whether it is ready, again and again, in a thread of its own.

    Attributes:
        complaints: everything that should not have been, with the second in which it was.
        ready: what it was when it was last asked; None: there was no answer.
        asked: how often it was asked and had to be right.
        gaps: seconds in which this process was stopped itself.
    """

    served: Served
    complaints: list[str] = field(default_factory=list)
    ready: bool | None = None
    asked: int = 0
    gaps: list[float] = field(default_factory=list)
    _spells: list[Spell] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._began = time.monotonic()
        self._should: bool | None = True
        self._changes = self._looks = 0
        self._unsure_until = 0.0
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def expect(self, should: bool | None) -> None:
        """What ready has to be from now on; None: either will do."""
        self._changes, self._should = self._changes + 1, should

    def complain(self, words: str) -> None:
        """Keep it, and say it at once."""
        self.complaints.append(f"{time.monotonic() - self._began:.1f} s: {words}")
        print(f"  WRONG {self.complaints[-1]}", flush=True)

    @contextmanager
    def spell(self, kind: str) -> Iterator[None]:
        """A fault lasts as long as the block."""
        found = Spell(kind, time.monotonic())
        self._spells.append(found)
        try:
            yield
        finally:
            found.ended = time.monotonic()

    def excused(self, kinds: tuple[str, ...], began: float) -> bool:
        """Whether such a fault, or a stop of everything, was under way after ``began``, or ended a second before."""
        return any(spell.ended + 1.0 > began and spell.kind in (*kinds, "gap") for spell in self._spells)

    def until(self, wanted: bool, seconds: float) -> bool:
        """Wait until ready is this, asked from now on; whether it came to be within so many seconds."""
        end, asked = time.monotonic() + seconds, self._looks
        while self.ready is not wanted or self._looks < asked + 2:
            if time.monotonic() > end:
                return False
            time.sleep(EVERY / 4)
        return True

    def _stopped(self, last: float, now: float) -> None:
        """From outside, with the server: that needs a self-test or two."""
        self.gaps.append(now - last)
        self._spells.append(Spell("gap", last, now + LATE))
        self._unsure_until = now + 60.0

    def close(self) -> None:
        """Ask no more."""
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        last = time.monotonic()
        while not self._over.wait(EVERY):
            before, should, changes = time.monotonic(), self._should, self._changes
            if before - last > LATE:
                self._stopped(last, before)
            status, _ = self.served.ask("/v2/health/ready", seconds=PATIENCE)
            now = time.monotonic()
            if now - before > PATIENCE + LATE:
                self._stopped(before, now)
            last = now
            self.ready = {200: True, 503: False}.get(status)
            self._looks += 1
            if self.ready:
                self._unsure_until = 0.0
            if should is None or changes != self._changes or now < self._unsure_until:
                continue
            self.asked += 1
            if self.ready is not should:
                words = {True: "ready", False: "not ready", None: "silent"}
                self.complain(f"the server is {words[self.ready]}, and should be {words[should]}")
