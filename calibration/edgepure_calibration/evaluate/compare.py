"""Two presets, precisions or bundles on the same images: paired exact tests, corrected for their number.

Intervals of two accuracies that overlap say little, because both were measured on the same images. What counts is the
images on which the two differ: under no difference each of them is a toss of a coin (McNemar's exact test).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from math import sqrt
from typing import Any

import numpy as np

from edgepure.errors import ConfigError

from .outcomes import Outcomes

#: Standard normal quantile of a two-sided 95 % interval.
_Z95 = 1.959963984540054


@dataclass(frozen=True)
class Comparison:
    """One attack and decision rule.

    Attributes:
        first, second: the presets that are compared.
        images: that both were measured on.
        right_first, right_second: decided right.
        only_first, only_second: decided right by one of them alone.
        difference: accuracy of the first minus that of the second, with its paired 95 % interval ``low`` to ``high``
            (Bonett and Price 2012).
        p: of McNemar's exact test, two-sided.
        adjusted: the same, corrected for the number of comparisons (Holm 1979).
    """

    first: str
    second: str
    attack: str
    rule: str
    images: int
    right_first: int
    right_second: int
    only_first: int
    only_second: int
    difference: float
    low: float
    high: float
    p: float
    adjusted: float = 1.0

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def compare(
    one: Outcomes, other: Outcomes, pairs: Sequence[tuple[str, str]] | None = None, rules: Sequence[str] | None = None
) -> list[Comparison]:
    """Compare presets on the images that both files hold, under every attack that both were under.

    Args:
        pairs: preset of the first, preset of the second; None: those of the same name.
        rules: decision rules; None: all that both have.

    Raises:
        ConfigError: they share no image, no attack or no preset.
    """
    place = {digest: i for i, digest in enumerate(other.images)}
    shared = [(i, place[digest]) for i, digest in enumerate(one.images) if digest in place]
    if not shared:
        raise ConfigError(
            "the two were evaluated on different images, so nothing can be paired; evaluate both on the same data with "
            "the same --images",
            code="E-compare-images",
        )
    mine, theirs = (list(column) for column in zip(*shared, strict=True))
    if pairs is None:
        pairs = [(name, name) for name in one.presets if name in other.presets]
    found = []
    for first, second in pairs:
        for preset, outcomes in ((first, one), (second, other)):
            if preset not in outcomes.presets:
                raise ConfigError(
                    f"no preset {preset!r} among the outcomes of {outcomes.bundle}; there are "
                    f"{', '.join(outcomes.presets)}",
                    code="E-compare-preset",
                )
        for (preset, attack, rule), right in one.right.items():
            against = other.right.get((second, attack, rule))
            if preset == first and against is not None and (rules is None or rule in rules):
                found.append(paired(first, second, attack, rule, right[mine], against[theirs]))
    if not found:
        raise ConfigError(
            "the two have no preset under the same attack in common; name presets, as in A:PRESET B:PRESET",
            code="E-compare-nothing",
        )
    return _holm(found)


def paired(first: str, second: str, attack: str, rule: str, one: Any, other: Any) -> Comparison:
    """Two lines of outcomes (which images ``[N]`` were right), compared image by image."""
    from scipy.stats import binomtest

    n, only_first, only_second = len(one), int((one & ~other).sum()), int((~one & other).sum())
    p = 1.0 if only_first + only_second == 0 else float(binomtest(only_first, only_first + only_second).pvalue)
    low, high = _interval(only_first, only_second, n)
    return Comparison(
        first=first,
        second=second,
        attack=attack,
        rule=rule,
        images=n,
        right_first=int(one.sum()),
        right_second=int(other.sum()),
        only_first=only_first,
        only_second=only_second,
        difference=(only_first - only_second) / n,
        low=low,
        high=high,
        p=p,
    )


def _interval(only_first: int, only_second: int, n: int) -> tuple[float, float]:
    """Bonett and Price 2012: Wald's interval with one image added to each kind of difference."""
    a, b = (only_first + 1) / (n + 2), (only_second + 1) / (n + 2)
    half = _Z95 * sqrt((a + b - (a - b) ** 2) / (n + 2))
    return max(a - b - half, -1.0), min(a - b + half, 1.0)


def _holm(found: Sequence[Comparison]) -> list[Comparison]:
    from dataclasses import replace

    adjusted, largest = np.ones(len(found)), 0.0
    for rank, i in enumerate(sorted(range(len(found)), key=lambda i: found[i].p)):
        largest = max(largest, min(1.0, (len(found) - rank) * found[i].p))
        adjusted[i] = largest
    return [replace(one, adjusted=float(value)) for one, value in zip(found, adjusted, strict=True)]


def to_csv(found: Sequence[Comparison]) -> str:
    """All fields, one comparison a line."""
    file = io.StringIO()
    writer = csv.DictWriter(file, fieldnames=list(found[0].to_dict()), lineterminator="\n")
    writer.writeheader()
    writer.writerows(one.to_dict() for one in found)
    return file.getvalue()


def to_latex(found: Sequence[Comparison]) -> str:
    """A ``tabular`` with booktabs rules."""
    lines = [
        r"\begin{tabular}{llrrrr}",
        r"\toprule",
        r"attack & rule & first, \% & second, \% & difference (95\,\%) & $p$ (Holm) \\",
        r"\midrule",
    ]
    for c in found:
        names = c.first if c.first == c.second else f"{c.first} / {c.second}"
        lines.append(
            f"{_latex(c.attack)} ({_latex(names)}) & {_latex(c.rule)} & {100 * c.right_first / c.images:.1f} & "
            f"{100 * c.right_second / c.images:.1f} & {100 * c.difference:+.1f} ({100 * c.low:+.1f} to "
            f"{100 * c.high:+.1f}) & {c.adjusted:.3g} \\\\"
        )
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def to_svg(found: Sequence[Comparison]) -> str:
    """The differences with their intervals, as a picture that stands alone."""
    left, width, row = 330, 380, 26
    height = row * len(found) + 54
    reach = max(0.01, *(abs(v) for c in found for v in (c.low, c.high)))

    def at(value: float) -> float:
        return left + width * (0.5 + 0.5 * value / reach)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 20} {height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{left + width + 20}" height="{height}" fill="white"/>',
        f'<line x1="{at(0):.1f}" y1="10" x2="{at(0):.1f}" y2="{height - 34}" stroke="#999" stroke-dasharray="3 3"/>',
    ]
    for number, c in enumerate(found):
        y = 24 + row * number
        names = c.first if c.first == c.second else f"{c.first} - {c.second}"
        colour = "#c2342b" if c.adjusted < 0.05 else "#12805c"
        parts.append(
            f'<text x="{left - 10}" y="{y + 4}" text-anchor="end">{escape(f"{names}, {c.attack}, {c.rule}")}</text>'
            f'<line x1="{at(c.low):.1f}" y1="{y}" x2="{at(c.high):.1f}" y2="{y}" stroke="{colour}" stroke-width="2"/>'
            f'<circle cx="{at(c.difference):.1f}" cy="{y}" r="4" fill="{colour}"/>'
        )
    for value in (-reach, 0.0, reach):
        parts.append(f'<text x="{at(value):.1f}" y="{height - 18}" text-anchor="middle">{100 * value:+.1f}</text>')
    words = "accuracy of the first minus the second, points; red: p below 0.05 after Holm"
    parts.append(f'<text x="{at(0):.1f}" y="{height - 4}" text-anchor="middle">{words}</text></svg>')
    return "".join(parts) + "\n"


def _latex(text: str) -> str:
    return "".join({"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$"}.get(c, c) for c in text)
