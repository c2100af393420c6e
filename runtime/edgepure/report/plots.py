"""Plots as inline SVG: no script, no library; the page's style sheet gives the colours, in light and dark.

Every mark has a ``kind``, a class of the style sheet: ``good``, ``bad``, ``soft``, ``accent``, ``bound`` (dashed), or
``s0`` to ``s7`` for series.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, isfinite, log10

import numpy as np
from numpy.typing import NDArray

from .text import Markup

WIDTH, HEIGHT = 520, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 24, 10, 36
#: What is not positive is drawn here on a logarithmic axis.
_SMALLEST = 1e-12
#: Width of a character and height of a line of the legend.
_CHARACTER, _LINE = 6.0, 15


@dataclass(frozen=True)
class Scale:
    """An axis from ``low`` to ``high``. ``unit``: ``%`` shows shares in percent; ``whole``: ticks at integers only."""

    low: float
    high: float
    log: bool = False
    unit: str = ""
    whole: bool = False

    @classmethod
    def over(cls, values: Iterable[float], *, log: bool = False, margin: float = 0.0, unit: str = "") -> Scale:
        """The axis that holds all finite values, with ``margin`` times their range on both sides."""
        finite = [max(v, _SMALLEST) if log else v for v in values if isfinite(v)] or [1.0]
        low, high = min(finite), max(finite)
        if log:
            room = (high / low) ** margin
            return cls(low / room, high * room if high > low else 10.0 * low, True, unit)
        room = margin * (high - low or 1.0)
        return cls(low - room, high + room if high > low else low + 1.0, False, unit)

    @classmethod
    def decades(cls, values: Iterable[float]) -> Scale:
        """A logarithmic axis from one power of ten to another."""
        near = cls.over(values, log=True)
        low, high = floor(log10(near.low)), ceil(log10(near.high))
        return cls(10.0**low, 10.0 ** max(high, low + 1), True)

    def place(self, value: float) -> float:
        """Where a value lies between 0 (low) and 1 (high); what is infinite or NaN lies at the end."""
        if not isfinite(value):
            return 1.0
        if self.log:
            return log10(max(value, _SMALLEST) / self.low) / log10(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[tuple[float, str]]:
        """Values with their labels, at most about seven."""
        if not self.log:
            step = _round_step((self.high - self.low) / 5.0)
            step = max(1.0, round(step)) if self.whole else step
            first, last = ceil(self.low / step - 1e-9), floor(self.high / step + 1e-9)
            return [(i * step, self._label(i * step)) for i in range(first, last + 1)]
        low, high = log10(self.low), log10(self.high)
        if high - low <= 2.0:  # 1, 2, 5, 10, 20 ...
            found = [f * 10.0**p for p in range(floor(low), ceil(high) + 1) for f in (1.0, 2.0, 5.0)]
            inside = [v for v in found if self.low <= v * (1 + 1e-9) and v <= self.high * (1 + 1e-9)]
            return [(v, self._label(v)) for v in inside or (self.low, self.high)]
        powers = range(ceil(low - 1e-9), floor(high + 1e-9) + 1, ceil((high - low) / 6))
        return [(10.0**p, f"1e{p}") for p in powers]

    def _label(self, value: float) -> str:
        return f"{100 * value:.4g} %" if self.unit == "%" else f"{value:.4g}"


class Plot:
    """Axes, and what is drawn on them. Coordinates are those of the scales."""

    def __init__(self, x: Scale, y: Scale, x_title: str, *, height: int = HEIGHT, left: int = _LEFT) -> None:
        self.x, self.y, self.x_title, self.height, self.left = x, y, x_title, height, left
        self._marks: list[str] = []
        self._legend: list[tuple[str, str]] = []

    def at(self, x: float, y: float) -> tuple[float, float]:
        """The place in the picture."""
        return (
            self.left + self.x.place(x) * (WIDTH - self.left - _RIGHT),
            _TOP + (1.0 - self.y.place(y)) * (self.height - _TOP - _BOTTOM),
        )

    def name(self, kind: str, name: str) -> None:
        """A line of the legend."""
        if name:
            self._legend.append((kind, name))

    def line(self, x: Sequence[float], y: Sequence[float], kind: str, name: str = "", *, dots: bool = False) -> None:
        """A line through points. ``dots``: the points too."""
        points = [self.at(a, b) for a, b in zip(x, y, strict=True)]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        self._marks.append(f'<polyline class="{kind}" points="{path}"><title>{escape(name)}</title></polyline>')
        if dots:
            self._marks += [f'<circle class="{kind}" cx="{a:.1f}" cy="{b:.1f}" r="2.2"/>' for a, b in points]
        self.name(kind, name)

    def dots(self, x: Sequence[float], y: Sequence[float], kind: str, name: str = "", *, radius: float = 3.0) -> None:
        """Points."""
        for place in zip(x, y, strict=True):
            a, b = self.at(*place)
            self._marks.append(f'<circle class="{kind}" cx="{a:.1f}" cy="{b:.1f}" r="{radius:g}"/>')
        self.name(kind, name)

    def ring(self, x: float, y: float, kind: str = "bad") -> None:
        """A circle around a point."""
        a, b = self.at(x, y)
        self._marks.append(f'<circle class="ring {kind}" cx="{a:.1f}" cy="{b:.1f}" r="6.5"/>')

    def between(self, x: float, low: float, high: float, kind: str) -> None:
        """An interval of y at x."""
        self._stroke(*self.at(x, low), *self.at(x, high), kind)

    def rule(self, x: float, kind: str = "bound", name: str = "") -> None:
        """A line from the bottom to the top at x."""
        self.between(x, self.y.low, self.y.high, kind)
        self.name(kind, name)

    def band(self, x: Sequence[float], low: Sequence[float], high: Sequence[float], kind: str) -> None:
        """The area between two lines."""
        points = [*zip(x, low, strict=True), *reversed(list(zip(x, high, strict=True)))]
        path = " ".join("{:.1f},{:.1f}".format(*self.at(*point)) for point in points)
        self._marks.append(f'<polygon class="{kind}" points="{path}"/>')

    def bar(self, x: tuple[float, float], y: tuple[float, float], kind: str, words: str = "") -> None:
        """A rectangle; ``words`` are shown when the pointer is on it."""
        (left, bottom), (right, top) = self.at(x[0], y[0]), self.at(x[1], y[1])
        self._marks.append(
            f'<rect class="{kind}" x="{left + 0.5:.1f}" y="{top:.1f}" width="{max(right - left - 1, 0.5):.1f}" '
            f'height="{max(bottom - top, 0):.1f}"><title>{escape(words)}</title></rect>'
        )

    def text(self, x: float, y: float, words: str, kind: str = "", shift: tuple[float, float] = (6, -6)) -> None:
        """Words beside a point."""
        a, b = self.at(x, y)
        anchor = "end" if a > 0.8 * WIDTH else "start"
        self._marks.append(_text(a - shift[0] if anchor == "end" else a + shift[0], b + shift[1], words, anchor, kind))

    def left_label(self, y: float, words: str) -> None:
        """A name in the place of a tick of the y axis."""
        self._marks.append(_text(self.left - 6, self.at(self.x.low, y)[1] + 3.5, words, "end"))

    def svg(self, label: str, *, y_ticks: bool = True) -> Markup:
        """The picture. ``label``: what a reader hears who cannot see it."""
        bottom = self.height - _BOTTOM
        marks = []
        for value, words in self.y.ticks() if y_ticks else ():
            y = self.at(self.x.low, value)[1]
            marks.append(f'<line class="grid" x1="{self.left}" y1="{y:.1f}" x2="{WIDTH - _RIGHT}" y2="{y:.1f}"/>')
            marks.append(_text(self.left - 6, y + 4, words, "end"))
        marks.append(f'<line class="grid" x1="{self.left}" y1="{bottom}" x2="{WIDTH - _RIGHT}" y2="{bottom}"/>')
        for value, words in self.x.ticks():
            marks.append(_text(self.at(value, self.y.low)[0], bottom + 15, words, "middle"))
        marks.append(_text((WIDTH + self.left) / 2, self.height - 5, self.x_title, "middle"))
        legend, below = self._placed_legend()
        return Markup(
            f'<svg class="plot" viewBox="0 0 {WIDTH} {self.height + below}" role="img" '
            f'aria-label="{escape(label, quote=True)}">{"".join([*marks, *self._marks, *legend])}</svg>'
        )

    def _stroke(self, x1: float, y1: float, x2: float, y2: float, kind: str) -> None:
        self._marks.append(f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>')

    def _placed_legend(self) -> tuple[list[str], int]:
        """Entries in lines below the axis, and the height that they take."""
        found, x, y = [], float(self.left), float(self.height + _LINE - 4)
        for kind, name in self._legend:
            width = 26 + _CHARACTER * len(name)
            if x > self.left and x + width > WIDTH:
                x, y = float(self.left), y + _LINE
            found.append(f'<rect class="{kind} key" x="{x:.1f}" y="{y - 8:.1f}" width="12" height="8"/>')
            found.append(_text(x + 17, y, name, "start"))
            x += width
        return found, int(y - self.height + 6) if found else 0


def log_lines(
    x: Sequence[float], series: Sequence[tuple[str, str, Sequence[float]]], x_title: str, mark: int | None = None
) -> Markup:
    """Lines over a linear x axis with a logarithmic y axis.

    Args:
        x: positions.
        series: (name, kind, values) of each.
        x_title: below the axis.
        mark: index of a point of the first series to mark.
    """
    scale = Scale(min(x), max(x) if max(x) > min(x) else min(x) + 1.0, whole=True)
    plot = Plot(scale, Scale.decades(v for _, _, line in series for v in line), x_title)
    for name, kind, line in series:
        plot.line(x, line, kind, name, dots=kind != "bound")
    if mark is not None:
        plot.ring(x[mark], series[0][2][mark])
    return plot.svg(", ".join(name for name, _, _ in series))


def histogram(values: NDArray[np.float64], x_title: str, bins: int = 21) -> Markup:
    """How often each value occurs, on an axis that is symmetric around zero."""
    finite = values[np.isfinite(values)]
    reach = float(np.abs(finite).max()) if finite.size else 0.0
    reach = reach if reach > 0.0 else _SMALLEST
    return histograms([("accent", "", finite)], x_title, np.linspace(-reach, reach, bins + 1))


def histograms(
    series: Sequence[tuple[str, str, NDArray[np.float64]]],
    x_title: str,
    edges: NDArray[np.float64],
    mark: tuple[float, str] | None = None,
) -> Markup:
    """How often each value occurs in each of several series.

    Args:
        series: (kind, name, values) of each, the later ones in front of the earlier ones.
        x_title: below the axis.
        edges: of the bins.
        mark: a value to mark, and what it is.
    """
    counts = [np.histogram(values, bins=edges)[0] for _, _, values in series]
    top = max(1, *(int(c.max()) for c in counts))
    plot = Plot(Scale(float(edges[0]), float(edges[-1])), Scale(0.0, float(top), whole=True), x_title)
    for (kind, name, _), heights in zip(series, counts, strict=True):
        for low, high, count in zip(edges[:-1], edges[1:], heights, strict=True):
            if count:
                plot.bar((float(low), float(high)), (0.0, float(count)), f"{kind} area", str(count))
        plot.name(kind, name)
    if mark is not None:
        plot.rule(mark[0], "bound", mark[1])
    return plot.svg(x_title)


def _round_step(rough: float) -> float:
    """1, 2 or 5 times a power of ten, at least ``rough``."""
    power = 10.0 ** floor(log10(rough))
    return next(f * power for f in (1.0, 2.0, 5.0, 10.0) if f * power >= rough * (1 - 1e-9))


def _text(x: float, y: float, words: str, anchor: str, kind: str = "") -> str:
    of = f' class="{kind}"' if kind else ""
    return f'<text{of} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'
