"""The slots of a step graph in NumPy: the runtime's loop without an engine."""

from __future__ import annotations

import numpy as np

from edgepure.engines.base import Stepper
from edgepure.rows.execute import EpsilonFunction, execute_row
from edgepure.rows.plan import COLUMNS, LEARNED_COLUMNS
from edgepure.types import Float32


class NumpyStepper(Stepper):
    """Rows in float32 NumPy; the network is a function."""

    def __init__(self, epsilon: EpsilonFunction, image_shape: tuple[int, int, int], capacity: int = 8) -> None:
        self._epsilon = epsilon
        self.capacity, self.image_shape = capacity, image_shape
        _, height, width = image_shape
        self._x = np.zeros((capacity, *image_shape), np.float32)
        self._ref = np.zeros_like(self._x)
        self._mask = np.ones((capacity, 1, height, width), np.float32)
        self.noise = np.zeros_like(self._x)
        self.noise_out = np.zeros_like(self._x)
        self.coeffs = np.zeros((capacity, len(COLUMNS) + len(LEARNED_COLUMNS)), np.float32)

    def admit(self, slot: int, x: Float32, ref: Float32, mask: Float32 | None) -> None:
        self._x[slot], self._ref[slot] = x, ref
        self._mask[slot] = 1.0 if mask is None else mask

    def move(self, source: int, target: int) -> None:
        for array in (self._x, self._ref, self._mask):
            array[target] = array[source]

    def step(self, active: int) -> None:
        assert self.noise_out is not None
        self._x[:active] = execute_row(
            self._epsilon,
            self._x[:active],
            self._ref[:active],
            self._mask[:active],
            self.noise[:active],
            self.coeffs[:active],
            self.noise_out[:active],
        )

    def state(self, slot: int) -> Float32:
        x: Float32 = self._x[slot].copy()
        return x
