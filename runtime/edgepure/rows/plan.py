"""The row table that every purification method compiles to.

One row is one call of the diffusion UNet with linear arithmetic around it. State of an image: ``x`` (current),
``ref`` (the input in [-1, 1]) and ``mask`` (1 inside). With ``w = w_in * mask + w_out * (1 - mask)``::

    z   = jump_a * ((1 - w) * x + w * known_a * ref) + std * n           n ~ N(0, 1), fresh for every row
    std = sqrt((jump_a * (1 - w) * carry_s)^2 + (jump_a * w * known_s)^2 + jump_s^2)
    eps = unet(z, t)                                                     t is real-valued
    x0  = clip((z - sigma * eps) / alpha, -clip, clip)                   clip may be infinite
    x'  = out_x * x + out_z * z + out_x0 * x0 + out_eps * eps + out_ref * ref

Networks with a learned-range variance (Nichol & Dhariwal 2021, equation 15) add a per-pixel variance from their extra
output channels ``v`` and a second noise ``n2``::

    log_var = f * log_var_max + (1 - f) * log_var_min,   f = (v + 1) / 2
    x' += out_noise * exp(log_var / 2) * n2 + exp(log_var) * (var_z * z + var_ref * ref)

All independent noises of a row are merged into one tensor ``n``: they are Gaussian, so ``std`` is exact. ``draws``
remembers what was merged, so that recorded noises can be composed into the same ``n`` (see
`edgepure.rows.replay.Replay`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from numbers import Real
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, ImageError
from ..validation import expect
from .views import information

#: Columns of the coefficient tensor of the `step` graph, in order: the row with everything worked out that does not
#: depend on a pixel. ``base`` is the factor outside the mask, ``mask`` what the inside adds to it::
#:
#:     z  = (x_base + x_mask * mask) * x + (ref_base + ref_mask * mask) * ref + (noise_base + noise_mask * mask) * n
#:     x0 = clip(x0_z * z + x0_eps * eps, x0_min, x0_max)
#:
#: The graph has no square root and few nodes, which on small images is what a step costs.
COLUMNS: tuple[str, ...] = (
    "t",
    "x_base",
    "ref_base",
    "noise_base",
    "x_mask",
    "ref_mask",
    "noise_mask",
    "x0_z",
    "x0_eps",
    "x0_min",
    "x0_max",
    "out_x",
    "out_z",
    "out_x0",
    "out_eps",
    "out_ref",
)
#: A longer plan is refused while it is compiled: one number in a stranger's preset could take all time and memory.
MAX_ROWS = 100_000
#: Columns that the learned-variance variant of the `step` graph has after those of `COLUMNS`.
LEARNED_COLUMNS: tuple[str, ...] = ("log_var_max", "log_var_min", "out_noise", "var_z", "var_ref")

#: What an infinite clip becomes in float32: large enough to be no bound, finite so that no engine makes inf - inf.
NO_CLIP = 1e30


@dataclass(frozen=True)
class Draw:
    """One independent noise of the method as it is written in its paper, before merging.

    Attributes:
        source: what it is for: initial, known, jump, step, target or probe.
        index: counts the draws of one source from 0, in the order in which the method makes them.
        level: the timestep that the noise belongs to.
        c_in, c_out: its factor in ``z`` inside and outside the mask.
    """

    source: str
    index: int
    level: float
    c_in: float
    c_out: float


@dataclass(frozen=True)
class Row:
    """One UNet call in the words of the papers; the fields before ``stage`` are the symbols of the module's text."""

    t: float
    w_in: float = 0.0
    w_out: float = 0.0
    known_a: float = 0.0
    known_s: float = 0.0
    carry_s: float = 0.0
    jump_a: float = 1.0
    jump_s: float = 0.0
    sigma: float = 1.0
    alpha: float = 1.0
    clip: float = math.inf
    out_x: float = 0.0
    out_z: float = 0.0
    out_x0: float = 0.0
    out_eps: float = 0.0
    out_ref: float = 0.0
    log_var_max: float = 0.0
    log_var_min: float = 0.0
    out_noise: float = 0.0
    var_z: float = 0.0
    var_ref: float = 0.0
    stage: str = "denoise"
    next_level: float = -1.0
    draws: tuple[Draw, ...] = ()
    out_draw: Draw | None = None

    def std(self, mask: float) -> float:
        """Standard deviation of the merged noise in ``z`` where the mask has the value ``mask`` in [0, 1]."""
        expect(mask=(mask, Real))
        w = self.w_in * mask + self.w_out * (1.0 - mask)
        return math.sqrt(
            (self.jump_a * (1.0 - w) * self.carry_s) ** 2 + (self.jump_a * w * self.known_s) ** 2 + self.jump_s**2
        )

    def columns(self) -> dict[str, float]:
        """The row as the step graph takes it: every column of `COLUMNS` and `LEARNED_COLUMNS`, in float64."""
        x = {w: self.jump_a * (1.0 - w) for w in (self.w_in, self.w_out)}
        ref = {w: self.jump_a * w * self.known_a for w in (self.w_in, self.w_out)}
        bound = min(self.clip, NO_CLIP)
        return {
            "t": self.t,
            "x_base": x[self.w_out],
            "x_mask": x[self.w_in] - x[self.w_out],
            "ref_base": ref[self.w_out],
            "ref_mask": ref[self.w_in] - ref[self.w_out],
            "noise_base": self.std(0.0),
            "noise_mask": self.std(1.0) - self.std(0.0),
            "x0_z": 1.0 / self.alpha,
            "x0_eps": -self.sigma / self.alpha,
            "x0_min": -bound,
            "x0_max": bound,
            **{name: getattr(self, name) for name in (*COLUMNS[11:], *LEARNED_COLUMNS)},
        }


@dataclass(frozen=True)
class Plan:
    """A compiled purification (or probe) of one image: its rows, and the noise that it still owes at the end.

    Attributes:
        method: name of the method, for people.
        rows: one per UNet call, in order.
        start: what ``x`` is before the first row: the input ``ref`` or ``zeros`` (probes accumulate from zero).
        closing: noises owed after the last row (an SDE step adds noise after its network call); they are added
            to the result with the standard deviation `closing_std`.
        learned_variance: the plan needs the learned-variance variant of the step graph.
        notes: facts that a reader of the plan should know, one sentence each.
        levels: named noise levels for reports, for example ``{"t_l": 200, "t_s": 100}``.
        mask_from: row before which the attention mask is computed, from the state there, which is a clean image; no row
            before it uses the mask. 0: the mask is computed from the input.
    """

    method: str
    rows: tuple[Row, ...]
    start: Literal["ref", "zeros"] = "ref"
    closing: tuple[Draw, ...] = ()
    learned_variance: bool = False
    notes: tuple[str, ...] = ()
    levels: Mapping[str, float] = field(default_factory=dict)
    mask_from: int = 0

    @property
    def graph(self) -> Literal["step", "step_learned"]:
        """The graph of a bundle that executes the rows."""
        return "step_learned" if self.learned_variance else "step"

    @property
    def unet_calls(self) -> int:
        """Number of UNet calls for one image and one vote."""
        return len(self.rows)

    @property
    def closing_std(self) -> float:
        """Standard deviation of the noise to add after the last row; 0 for most methods."""
        return math.sqrt(sum(d.c_in**2 for d in self.closing))

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns of `coeffs`."""
        return COLUMNS + LEARNED_COLUMNS if self.learned_variance else COLUMNS

    @cached_property
    def needs_mask(self) -> bool:
        """True if inside and outside of the attention mask are treated differently."""
        return any(r.w_in != r.w_out for r in self.rows)

    @cached_property
    def noisy_rows(self) -> tuple[int, ...]:
        """Indices of the rows that need a merged noise; the others have ``std = 0`` everywhere."""
        return tuple(i for i, r in enumerate(self.rows) if r.draws)

    @cached_property
    def out_noisy_rows(self) -> tuple[int, ...]:
        """Indices of the rows that need the second noise of the learned-variance variant."""
        return tuple(i for i, r in enumerate(self.rows) if r.out_noise != 0.0)

    @cached_property
    def coeffs(self) -> NDArray[np.float32]:
        """``[rows, K]`` float32, read-only: the coefficient table, cast once from float64."""
        names = self.columns
        rows = [row.columns() for row in self.rows]
        table = np.array([[row[n] for n in names] for row in rows], dtype=np.float64)
        result = table.reshape(len(self.rows), len(names)).astype(np.float32)
        result.setflags(write=False)
        return result

    @overload
    def certified_sigma(self, mask: None = None) -> float: ...
    @overload
    def certified_sigma(self, mask: NDArray[Any]) -> NDArray[np.float64]: ...
    def certified_sigma(self, mask: NDArray[Any] | None = None) -> float | NDArray[np.float64]:
        """The noise of the one noised copy of the input, ``input + sigma * n``, that says as much as all that the plan
        sees of it: a certificate's sigma, for images in [0, 1].

        Args:
            mask: ``[1, H, W]`` of 0 and 1, 1 inside; then the sigma of each pixel. It must not depend on the input: one
                that is computed from the input itself sees it without noise. None: the smallest sigma, inside or
                outside; with `mask_from` that holds for the mask that is computed there, too.

        Raises:
            ConfigError: the input is used without noise; code ``E-certificate-plan``, and the reason.
            ImageError: the mask has other values; code ``E-mask-values``.
        """
        inside, outside = (self._view(1.0), self._view(0.0)) if self.needs_mask else (self._view(1.0),) * 2
        if mask is None:
            return min(inside, outside)
        expect(mask=(mask, np.ndarray))
        if not np.isin(mask, (0, 1)).all():  # between them a pixel may be seen with less noise than on either side
            raise ImageError(
                "a mask with values other than 0 and 1 has no sigma for each pixel; cut it at a threshold (mask > 0.5)",
                code="E-mask-values",
            )
        return np.where(mask == 1, inside, outside)

    def _view(self, mask: float) -> float:
        table = [dict(zip(self.columns, row, strict=True)) for row in self.coeffs.astype(np.float64).tolist()]
        start, first = float(self.start == "ref"), self.mask_from
        total = information(table, start=start, closing_std=self.closing_std, mask=mask, mask_from=first)
        return 0.5 / math.sqrt(total) if total > 0.0 else math.inf

    @cached_property
    def sees_input_once(self) -> bool:
        """True if the first row takes the input with noise, everywhere alike, and nothing after it takes the input."""
        if not self.rows or self.needs_mask:
            return False
        names, table = self.columns, self.coeffs
        own = [names.index(name) for name in ("ref_base", "ref_mask", "out_ref", "var_ref") if name in names]
        first = dict(zip(names, table[0].tolist(), strict=True))
        alone = (
            first["x_base"] == first["x_mask"] == first["out_x"] == first["out_ref"] == first.get("var_ref", 0.0) == 0.0
        )
        return alone and first["ref_base"] != 0.0 and not table[1:, own].any()

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON: infinite clips become None."""
        numeric = [f.name for f in fields(Row) if f.name not in ("stage", "draws", "out_draw")]
        rows = []
        for row in self.rows:
            values = {n: getattr(row, n) for n in numeric}
            values["clip"] = None if math.isinf(row.clip) else row.clip
            rows.append({"stage": row.stage, **values, "std_in": row.std(1.0), "std_out": row.std(0.0)})
        return {
            "method": self.method,
            "unet_calls": self.unet_calls,
            "start": self.start,
            "closing_std": self.closing_std,
            "mask_from": self.mask_from,
            "learned_variance": self.learned_variance,
            "levels": dict(self.levels),
            "notes": list(self.notes),
            "rows": rows,
        }


def check_length(rows: int, method: str) -> None:
    """Refuse a plan of so many rows if it is longer than `MAX_ROWS`.

    Raises:
        ConfigError: it is.
    """
    if rows > MAX_ROWS:
        raise ConfigError(
            f"method {method!r} takes more than {MAX_ROWS} UNet calls with these parameters; choose fewer steps, "
            "rounds or repetitions",
            code="E-plan-length",
        )
