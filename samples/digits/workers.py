"""Several methods at a time, each on one core: small networks gain more from that than from threads in one call."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import TypeVar

from build_bundle import reference
from models import load_classifier, load_unet

import edgepure
from edgepure_export import TorchReference

T = TypeVar("T")

#: Told by a task how much of it is done, 0..1.
Report = Callable[[float], None]


@dataclass(frozen=True)
class Pair:
    """The exported graphs on an engine, and their PyTorch twin. One task uses a pair at a time."""

    purifier: edgepure.Purifier
    twin: TorchReference


class Workers:
    """``count`` pairs of the same bundle, and the threads that use them."""

    def __init__(self, bundle: Path, weights: Path, count: int) -> None:
        self._count = count
        self._free: SimpleQueue[Pair] = SimpleQueue()
        self._open = ExitStack()
        for _ in range(count):
            purifier = self._open.enter_context(edgepure.load(bundle, threads=1, slots=32))
            self._free.put(Pair(purifier, reference(load_classifier(weights), load_unet(weights))))

    def each(
        self, tasks: Mapping[str, float], work: Callable[[str, Pair, Report], T], on_progress: Report | None = None
    ) -> dict[str, T]:
        """Run ``work(name, pair, report)`` for every task, ``count`` at a time, the first ones first.

        ``tasks``: names with their estimated costs, in any unit. ``on_progress``: told the share of all of it that is
        done. The first exception ends the tasks that still run, at their next report, and is raised.
        """
        total, lock, stopped = sum(tasks.values()), threading.Lock(), threading.Event()
        done = dict.fromkeys(tasks, 0.0)

        def one(name: str) -> T:
            def report(share: float) -> None:
                if stopped.is_set():
                    raise InterruptedError("another task failed")
                with lock:
                    done[name] = share * tasks[name]
                    if on_progress is not None:
                        on_progress(sum(done.values()) / total)

            pair = self._free.get()
            try:
                return work(name, pair, report)
            finally:
                self._free.put(pair)

        with ThreadPoolExecutor(self._count) as pool:
            futures = {name: pool.submit(one, name) for name in tasks}
            try:
                finished = wait(futures.values(), return_when=FIRST_EXCEPTION).done
                for future in finished:
                    future.result()
            except BaseException:  # Ctrl-C too
                stopped.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
            return {name: future.result() for name, future in futures.items()}

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()
