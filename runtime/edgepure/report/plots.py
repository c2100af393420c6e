"""Small plots as inline SVG: no script, no library, colours of the page's style sheet."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import ceil, floor, isfinite, log10

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 520, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 12, 10, 34
#: What is not positive is drawn here on a logarithmic axis.
_SMALLEST = 1e-12


def log_lines(
    x: Sequence[float], series: Sequence[tuple[str, str, Sequence[float]]], x_title: str, mark: int | None = None
) -> str:
    """Lines over a linear x axis with a logarithmic y axis.

    Args:
        x: positions.
        series: (name, class of the line in the style sheet, values) of each.
        x_title: below the axis.
        mark: index of a point of the first series to mark.
    """
    values = [max(v, _SMALLEST) for _, _, line in series for v in line if isfinite(v)] or [1.0]
    low, high = floor(log10(min(values))), ceil(log10(max(values)))
    high = max(high, low + 1)
    span = max(x) - min(x) or 1.0

    def point(at: float, value: float) -> tuple[float, float]:
        level = log10(max(value, _SMALLEST)) if isfinite(value) else float(high)
        left = _LEFT + (at - min(x)) / span * (WIDTH - _LEFT - _RIGHT)
        return left, _TOP + (high - level) / (high - low) * (HEIGHT - _TOP - _BOTTOM)

    parts = []
    step = ceil((high - low) / 6)
    for power in range(low, high + 1, step):
        y = point(min(x), 10.0**power)[1]
        parts.append(_line(_LEFT, y, WIDTH - _RIGHT, y, "grid") + _text(_LEFT - 6, y + 4, f"1e{power}", "end"))
    for at in _ticks(min(x), max(x)):
        parts.append(_text(point(at, 1.0)[0], HEIGHT - _BOTTOM + 16, f"{at:g}", "middle"))
    parts.append(_text((WIDTH + _LEFT) / 2, HEIGHT - 4, x_title, "middle"))
    for name, kind, line in series:
        points = [point(at, value) for at, value in zip(x, line, strict=True)]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        dots = "".join(f'<circle class="{kind}" cx="{a:.1f}" cy="{b:.1f}" r="2.2"/>' for a, b in points)
        parts.append(f'<polyline class="{kind}" points="{path}"><title>{escape(name)}</title></polyline>')
        parts.append(dots if kind != "bound" else "")
    if mark is not None:
        a, b = point(x[mark], series[0][2][mark])
        parts.append(f'<circle class="mark" cx="{a:.1f}" cy="{b:.1f}" r="6"/>')
    return _svg(parts, ", ".join(name for name, _, _ in series))


def histogram(values: NDArray[np.float64], x_title: str, bins: int = 21) -> str:
    """How often each value occurs, on an axis that is symmetric around zero."""
    finite = values[np.isfinite(values)]
    reach = float(np.abs(finite).max()) if finite.size else 0.0
    reach = reach if reach > 0.0 else 1e-12
    counts, _ = np.histogram(finite, bins=bins, range=(-reach, reach))
    width = (WIDTH - _LEFT - _RIGHT) / bins
    room = HEIGHT - _TOP - _BOTTOM
    top = max(int(counts.max()), 1)
    parts = [_line(_LEFT, HEIGHT - _BOTTOM, WIDTH - _RIGHT, HEIGHT - _BOTTOM, "grid")]
    parts.append(_text(_LEFT - 6, _TOP + 10, str(top), "end") + _text(_LEFT - 6, HEIGHT - _BOTTOM, "0", "end"))
    for i, count in enumerate(counts):
        size = room * int(count) / top
        parts.append(
            f'<rect class="bar0" x="{_LEFT + i * width + 1:.1f}" y="{HEIGHT - _BOTTOM - size:.1f}" '
            f'width="{width - 2:.1f}" height="{size:.1f}"><title>{count}</title></rect>'
        )
    for share, value in ((0.0, -reach), (0.5, 0.0), (1.0, reach)):
        at = _LEFT + share * (WIDTH - _LEFT - _RIGHT)
        parts.append(_text(at, HEIGHT - _BOTTOM + 16, f"{value:.2g}", "middle" if share < 1.0 else "end"))
    parts.append(_text((WIDTH + _LEFT) / 2, HEIGHT - 4, x_title, "middle"))
    return _svg(parts, x_title)


def _ticks(low: float, high: float) -> list[float]:
    count = min(int(high - low), 6)
    return [low] if count < 1 else sorted({round(v) for v in np.linspace(low, high, count + 1)})


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(parts: Sequence[str], label: str) -> str:
    return (
        f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">'
        + "".join(parts)
        + "</svg>"
    )


CSS = """
.plots{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,26rem),1fr));gap:.8rem;margin:.8rem 0}
.plots figure{background:var(--panel);border:1px solid var(--line);border-radius:.8rem;padding:.8rem .9rem}
svg.plot{display:block;width:100%;height:auto}svg.plot text{font-size:11px;fill:var(--soft)}
svg.plot .grid{stroke:var(--line)}svg.plot polyline{fill:none;stroke-width:1.8}
svg.plot polyline.line0{stroke:var(--accent)}svg.plot circle.line0{fill:var(--accent)}
svg.plot polyline.bound{stroke:var(--soft);stroke-dasharray:5 4}svg.plot .bar0{fill:var(--accent)}
svg.plot circle.mark{fill:none;stroke:var(--bad);stroke-width:2}
td.ok{color:var(--good)}td.failed{color:var(--bad);font-weight:600}
"""
