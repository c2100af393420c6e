"""The page of a certification: what is not covered, the table, and a curve for each preset."""

from __future__ import annotations

from pathlib import Path

from edgepure.report.page import Cell, Figure, Figures, Notes, Section, Table, Verdict, page, write_page
from edgepure.report.plots import Plot, Scale
from edgepure.report.text import Markup

from .results import Certified

#: Kinds of lines in the style sheet, in order.
LINES = ("s2", "s0", "s1", "s3")


def write_report(path: Path, found: Certified) -> Path:
    """Write the page, whole or not at all."""
    warnings = found.warnings()
    cover = Section("Certificates", warnings, [Notes([])], Verdict(_first(found), "fair"), top=True)
    table = Section(
        "Certified accuracy",
        ["The share of images that are answered right and proven to stay so within r; abstentions count as wrong."],
        [_table(found), *_figures(found)],
    )
    settings = found.settings
    counted = {"n": f"{settings.n}", "n0": f"{settings.chosen_by}", "alpha": f"{settings.alpha:g}"}
    if settings.radius is not None:
        counted["until"] = f"radius {settings.radius:g} was settled either way"
    return write_page(path, page("Certificates", [cover, table], {**found.facts, **counted}), "--out")


def _first(found: Certified) -> str:
    radius, curve = max(found.best()[-4:], key=lambda pair: pair[1].certified(pair[0]))
    return f"{100 * curve.share(radius):.1f} % of the images are certified right within L2 {radius:g} ({curve.name})."


def _figures(found: Certified) -> list[Figures]:
    """Curves, where all answers were counted: else only one radius is settled."""
    if found.settings.radius is not None:
        return []
    return [Figures([Figure(_curves(found), "Certified accuracy by radius: a curve for each preset.")])]


def _table(found: Certified) -> Table:
    columns = ["preset", "sigma", "UNet calls", *(f"r = {r:g}" for r in found.radii), "abstained", "answers an image"]
    rows: list[list[str | Cell]] = []
    for curve in found.curves:
        shares = [Cell(f"{100 * curve.share(r):.1f} %", bar=curve.share(r)) for r in found.radii]
        tail = [str(curve.abstained), f"{curve.samples:.0f}"]
        rows.append([curve.name, f"{curve.sigma:.4g}", str(curve.unet_calls), *shares, *tail])
    return Table.of(columns, rows, right=columns[1:])


def _curves(found: Certified) -> Markup:
    most = max((e.certificate.radius for c in found.curves for e in c.entries), default=0.0)
    plot = Plot(Scale(0.0, max(1.05 * most, 0.1)), Scale(0.0, 1.0, unit="%"), "L2 radius")
    for curve, kind in zip(found.curves, LINES * len(found.curves), strict=False):
        x, y, before = [], [], 0.0
        for radius in sorted({0.0, *(e.certificate.radius for e in curve.entries if e.correct)}):
            x += [before, radius]
            y += [curve.share(radius)] * 2
            before = radius
        plot.line([*x, before], [*y, 0.0], kind, curve.name)
    return plot.svg("certified accuracy by radius")
