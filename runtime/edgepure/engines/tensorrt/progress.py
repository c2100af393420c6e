"""How far a TensorRT build is, from the phases that the builder reports; and the way to stop one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .module import TensorRT


@dataclass
class _Phase:
    parent: str | None
    steps: int
    done: int = 0


class Phases:
    """The builder's phases, nested; thread-safe, because the builder reports from several threads."""

    def __init__(self, report: Callable[[float], None]) -> None:
        self._report = report
        self._phases: dict[str, _Phase] = {}
        self._lock = threading.Lock()
        self._share = 0.0
        self.cancelled = False

    def start(self, name: str, parent: str | None, steps: int) -> None:
        with self._lock:
            self._phases[name] = _Phase(parent, max(int(steps), 1))

    def step(self, name: str, step: int) -> bool:
        """Step ``step`` (from 0) of a phase is done. False asks the builder to stop."""
        with self._lock:
            if name in self._phases:
                self._phases[name].done = int(step) + 1
            share = max(self._share, self._total())  # later phases must not seem to undo earlier ones
            self._share = share
        self._report(share)
        return not self.cancelled

    def finish(self, name: str) -> None:
        with self._lock:
            self._phases.pop(name, None)

    def _total(self) -> float:
        roots = [name for name, phase in self._phases.items() if phase.parent not in self._phases]
        return max((self._inside(name) for name in roots), default=self._share)

    def _inside(self, name: str) -> float:
        """The share of a phase: whole steps, and what its children have done of the step under way."""
        phase = self._phases[name]
        inner = [self._inside(child) for child, other in self._phases.items() if other.parent == name]
        return min((phase.done + max(inner, default=0.0)) / phase.steps, 1.0)


def make_monitor(trt: TensorRT, phases: Phases) -> Any:
    """A TensorRT progress monitor that tells ``phases``."""
    base = trt.module.IProgressMonitor

    class Monitor(base):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            base.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            phases.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return phases.step(phase_name, step)

        def phase_finish(self, phase_name: str) -> None:
            phases.finish(phase_name)

    return Monitor()
