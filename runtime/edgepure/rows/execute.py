"""The row arithmetic in NumPy around any epsilon function: the readable definition of what `step` graphs compute."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..errors import EdgepureError
from ..types import Float32
from .plan import COLUMNS, LEARNED_COLUMNS

#: ``epsilon(z [B, C, H, W], t [B]) -> [B, C, H, W]``, or ``[B, 2C, H, W]`` for learned-variance networks.
EpsilonFunction = Callable[[Float32, Float32], Float32]


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
                f"{channels} of the image instead of {2 * channels}; choose variance 'fixed_small'",
                code="E-learned-variance-network",
            )
        f = 0.5 * (output[:, channels:] + 1.0)
        log_var = f * c["log_var_max"] + (1.0 - f) * c["log_var_min"]
        result = result + c["out_noise"] * np.exp(0.5 * log_var) * noise_out
        result = result + np.exp(log_var) * (c["var_z"] * z + c["var_ref"] * ref)
    return np.asarray(result, dtype=np.float32)
