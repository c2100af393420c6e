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
`edgepure.rows.noise.Replay`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError

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
    """

    method: str
    rows: tuple[Row, ...]
    start: Literal["ref", "zeros"] = "ref"
    closing: tuple[Draw, ...] = ()
    learned_variance: bool = False
    notes: tuple[str, ...] = ()
    levels: Mapping[str, float] = field(default_factory=dict)

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
            "rounds or repetitions"
        )


@dataclass
class _Region:
    """``z`` of one region as a linear form: ``x_factor * x + ref_factor * ref + sum(factor * draw)``."""

    x_factor: float = 1.0
    ref_factor: float = 0.0
    noise: dict[tuple[str, int, float], float] = field(default_factory=dict)

    def scale(self, factor: float) -> None:
        self.x_factor *= factor
        self.ref_factor *= factor
        self.noise = {k: factor * c for k, c in self.noise.items()}

    @property
    def variance(self) -> float:
        return sum(c * c for c in self.noise.values())


class RowBuilder:
    """Writes rows in the words of the papers: diffuse, inject the known region, jump, call the network.

    Between two network calls it keeps ``z`` of both regions as a linear form of x, ref and the noises drawn, and turns
    it into the coefficients of one row when the network is called.
    """

    def __init__(self, method: str) -> None:
        self.method = method
        self.rows: list[Row] = []
        self._inside = _Region()
        self._outside = _Region()
        self._owed: dict[tuple[str, int, float], float] = {}
        self._counts: dict[str, int] = {}

    def draw(self, source: str, level: float) -> tuple[str, int, float]:
        """A new independent noise of the method."""
        index = self._counts.get(source, 0)
        self._counts[source] = index + 1
        return (source, index, float(level))

    def diffuse_ref(self, a: float, s: float, level: float, source: str = "initial") -> RowBuilder:
        """Replace x everywhere by ``a * ref + s * noise``: the start of a purification."""
        key = self.draw(source, level)
        for region in (self._inside, self._outside):
            self._set_known(region, a, s, key)
        return self

    def inject_outside(self, a: float, s: float, level: float) -> RowBuilder:
        """Replace x outside the mask by the input noised to the current level: x^known of the inpainting stage."""
        self._set_known(self._outside, a, s, self.draw("known", level))
        return self

    def jump(self, a: float, s: float, level: float, source: str = "jump") -> RowBuilder:
        """Forward diffusion of the whole current state: ``x <- a * x + s * noise``."""
        key = self.draw(source, level)
        for region in (self._inside, self._outside):
            region.scale(a)
            if s > 0.0:
                region.noise[key] = s
        return self

    def call(
        self,
        t: float,
        *,
        alpha: float,
        sigma: float,
        clip: float = math.inf,
        stage: str = "denoise",
        next_level: float = -1.0,
        owes: Iterable[tuple[str, float, float]] = (),
        out_draw_level: float | None = None,
        **out: float,
    ) -> RowBuilder:
        """Call the network at timestep ``t`` and make x' (``out_*`` columns).

        ``owes``: (source, level, std) of the noises that the step adds to x' after the network call. They are carried
        into the next row. ``out_draw_level``: set if the row draws a per-pixel noise (learned variance).
        """
        check_length(len(self.rows) + 1, self.method)
        inside, outside = self._inside, self._outside
        w_in, w_out = float(inside.x_factor == 0.0), float(outside.x_factor == 0.0)
        carry = math.sqrt(sum(c * c for c in self._owed.values()))
        unknown = [r for r in (inside, outside) if r.x_factor != 0.0]
        known = [r for r in (inside, outside) if r.x_factor == 0.0]
        jump_a, jump_s, known_a, known_s = 1.0, 0.0, 0.0, 0.0
        if unknown:
            jump_a = unknown[0].x_factor
            jump_s = math.sqrt(max(unknown[0].variance - (jump_a * carry) ** 2, 0.0))
        if known:
            first = known[0]
            if any(abs(r.variance - first.variance) + abs(r.ref_factor - first.ref_factor) > 1e-12 for r in known):
                raise ConfigError("inside and outside of the mask were diffused to different levels before one call")
            rest = first.variance - jump_s**2
            if rest < -1e-12:
                raise ConfigError("the known region holds less noise than the jump that follows it adds")
            known_a = first.ref_factor / jump_a
            known_s = math.sqrt(max(rest, 0.0)) / jump_a
        keys = list(dict.fromkeys([*inside.noise, *outside.noise]))
        draws = tuple(Draw(*k, inside.noise.get(k, 0.0), outside.noise.get(k, 0.0)) for k in keys)
        out_draw = None
        if out_draw_level is not None:
            out_draw = Draw(*self.draw("step", out_draw_level), 1.0, 1.0)
        self.rows.append(
            Row(
                t=float(t), w_in=w_in, w_out=w_out, known_a=known_a, known_s=known_s, carry_s=carry, jump_a=jump_a,
                jump_s=jump_s, sigma=sigma, alpha=alpha, clip=clip, stage=stage, next_level=float(next_level),
                draws=draws, out_draw=out_draw, **out,
            )
        )  # fmt: skip
        self._owed = {self.draw(source, level): std for source, level, std in owes if std > 0.0}
        self._inside = _Region(noise=dict(self._owed))
        self._outside = _Region(noise=dict(self._owed))
        return self

    def finish(
        self,
        *,
        start: Literal["ref", "zeros"] = "ref",
        learned_variance: bool = False,
        notes: Iterable[str] = (),
        levels: Mapping[str, float] | None = None,
    ) -> Plan:
        """The finished plan; noise that is still owed becomes its closing noise."""
        closing = tuple(Draw(*k, c, c) for k, c in self._owed.items())
        return Plan(
            self.method, tuple(self.rows), start=start, closing=closing, learned_variance=learned_variance,
            notes=tuple(notes), levels=dict(levels or {}),
        )  # fmt: skip

    @staticmethod
    def _set_known(region: _Region, a: float, s: float, key: tuple[str, int, float]) -> None:
        region.x_factor, region.ref_factor = 0.0, a
        region.noise = {key: s} if s > 0.0 else {}
