"""`RowBuilder` writes rows in the words of the papers; every method compiles through it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from ..errors import ConfigError
from .plan import Draw, Plan, Row, check_length


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
                raise ConfigError(
                    "inside and outside of the mask were diffused to different levels before one call; "
                    "give both regions the same level there",
                    code="E-plan-levels",
                )
            rest = first.variance - jump_s**2
            if rest < -1e-12:
                raise ConfigError(
                    "the known region holds less noise than the jump that follows it adds; make a smaller jump",
                    code="E-plan-levels",
                )
            known_a = first.ref_factor / jump_a
            known_s = math.sqrt(max(rest, 0.0)) / jump_a
        keys = list(dict.fromkeys([*inside.noise, *outside.noise]))
        draws = tuple(Draw(*k, inside.noise.get(k, 0.0), outside.noise.get(k, 0.0)) for k in keys)
        out_draw = None
        if out_draw_level is not None:
            out_draw = Draw(*self.draw("step", out_draw_level), 1.0, 1.0)
        self.rows.append(
            Row(
                t=float(t),
                w_in=w_in,
                w_out=w_out,
                known_a=known_a,
                known_s=known_s,
                carry_s=carry,
                jump_a=jump_a,
                jump_s=jump_s,
                sigma=sigma,
                alpha=alpha,
                clip=clip,
                stage=stage,
                next_level=float(next_level),
                draws=draws,
                out_draw=out_draw,
                **out,
            )
        )
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
        mask_from: int = 0,
    ) -> Plan:
        """The finished plan; noise that is still owed becomes its closing noise."""
        closing = tuple(Draw(*k, c, c) for k, c in self._owed.items())
        return Plan(
            self.method,
            tuple(self.rows),
            start=start,
            closing=closing,
            learned_variance=learned_variance,
            notes=tuple(notes),
            levels=dict(levels or {}),
            mask_from=mask_from,
        )

    @staticmethod
    def _set_known(region: _Region, a: float, s: float, key: tuple[str, int, float]) -> None:
        region.x_factor, region.ref_factor = 0.0, a
        region.noise = {key: s} if s > 0.0 else {}
