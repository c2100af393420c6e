"""The row arithmetic in NumPy around any epsilon function: the readable definition of what the `step` graph computes.

Used where a model has no fused step graph (a bare UNet in any runtime), and to test the fused ones.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..errors import EdgepureError
from ..rows.plan import COLUMNS, LEARNED_COLUMNS
from .base import Float32, Stepper

#: ``epsilon(z [B, C, H, W], t [B]) -> [B, C, H, W]``, or ``[B, 2C, H, W]`` for learned-variance networks.
EpsilonFunction = Callable[[Float32, Float32], Float32]


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
            self._epsilon, self._x[:active], self._ref[:active], self._mask[:active],
            self.noise[:active], self.coeffs[:active], self.noise_out[:active],
        )  # fmt: skip

    def state(self, slot: int) -> Float32:
        x: Float32 = self._x[slot].copy()
        return x


def execute_row(
    epsilon: EpsilonFunction,
    x: Float32,
    ref: Float32,
    mask: Float32,
    noise: Float32,
    coeffs: Float32,
    noise_out: Float32 | None = None,
) -> Float32:
    """One row for a batch; each image has its own coefficients. Shapes and meaning: see `edgepure.rows.plan`."""
    names = (COLUMNS + LEARNED_COLUMNS)[: coeffs.shape[1]]
    c = {name: coeffs[:, i, None, None, None] for i, name in enumerate(names)}
    factor = {n: c[f"{n}_base"] + c[f"{n}_mask"] * mask for n in ("x", "ref", "noise")}
    z = factor["x"] * x + factor["ref"] * ref + factor["noise"] * noise
    output = epsilon(z.astype(np.float32, copy=False), np.ascontiguousarray(coeffs[:, 0]))
    channels = x.shape[1]
    eps = output[:, :channels]
    x0 = np.clip(c["x0_z"] * z + c["x0_eps"] * eps, c["x0_min"], c["x0_max"])
    result = c["out_x"] * x + c["out_z"] * z + c["out_x0"] * x0 + c["out_eps"] * eps + c["out_ref"] * ref
    if coeffs[:, len(COLUMNS) :].any():
        if output.shape[1] != 2 * channels or noise_out is None:
            raise EdgepureError(
                f"the plan uses the network's learned variance, but the network gives {output.shape[1]} channels for "
                f"{channels} of the image instead of {2 * channels}; choose variance 'fixed_small'"
            )
        f = 0.5 * (output[:, channels:] + 1.0)
        log_var = f * c["log_var_max"] + (1.0 - f) * c["log_var_min"]
        result = result + c["out_noise"] * np.exp(0.5 * log_var) * noise_out
        result = result + np.exp(log_var) * (c["var_z"] * z + c["var_ref"] * ref)
    return np.asarray(result, dtype=np.float32)
