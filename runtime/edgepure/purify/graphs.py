"""The graphs of a bundle on one engine: opened at first use, used in turn, closed together."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from ..engines.base import Engine, Stepper
from ..errors import BundleError
from .turns import Turns

Float32 = NDArray[np.float32]


class OpenGraphs:
    """The engines and the banks of slots of a purifier. After `close` the next use opens them anew.

    Attributes:
        turns: who may use them at the moment.
    """

    def __init__(self, opens: Callable[[str], Engine], slots: int) -> None:
        """``opens``: gives the engine of a graph, anew. ``slots``: as for `Engine.stepper`."""
        self._opens, self._slots = opens, slots
        self._engines: dict[str, Engine] = {}
        self._steppers: dict[str, Stepper] = {}
        self.turns = Turns()

    def engine(self, graph: str) -> Engine:
        """The engine of one graph."""
        if graph not in self._engines:
            self._engines[graph] = self._opens(graph)
        return self._engines[graph]

    def stepper(self, graph: str) -> Stepper:
        """The bank of slots of a step graph."""
        if graph not in self._steppers:
            self._steppers[graph] = self.engine(graph).stepper(self._slots)
        return self._steppers[graph]

    def run(
        self, graph: str, feeds: Mapping[str, Float32], shapes: Mapping[str, tuple[int, ...]]
    ) -> dict[str, Float32]:
        """One call of a graph; its outputs have these shapes.

        Raises:
            BundleError: they have others, so the graph is not what the bundle says.
            ImageError: an input has another shape or dtype than the graph takes.
        """
        with self.turns.shared():
            found = self.engine(graph).run(feeds)
        for name, shape in shapes.items():
            if found[name].shape != shape:
                raise BundleError(
                    f"the graph {graph} gives {name} of the shape {list(found[name].shape)}, expected {list(shape)}; "
                    "export the bundle again"
                )
        return found

    def close(self) -> None:
        """Give their memory back, when the calls of other threads are done. In a forked process nothing is done: they
        are the parent's."""
        if self.turns.forked:
            return
        with self.turns.alone():
            parts = (*self._steppers.values(), *self._engines.values())
            self._steppers.clear()
            self._engines.clear()
            for part in parts:
                part.close()
