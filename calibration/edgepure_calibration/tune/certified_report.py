"""The report of a tuning run for certificates."""

from __future__ import annotations

from os import PathLike

from edgepure.report.page import Card, Cards, Cell, Figure, Figures, Notes, Row, Section, Table, page, write_page
from edgepure.report.plots import Plot, Scale
from edgepure.report.text import Markup

from .certified import CertifiedTuning
from .points import Point


def write_certified_report(found: CertifiedTuning, path: str | PathLike[str]) -> None:
    """Write the page; it appears whole or not at all."""
    s, title = found.settings, f"{found.bundle}: certified within L2 {found.settings.radius:g}"
    cards = [
        Card(name, f"{100 * p.robust:.1f} %", f"certified; UNet calls {p.calls} an answer; {p.candidate.summary()}")
        for name, p in found.chosen.items()
    ]
    words = (
        "Certified accuracy: the share of images that are answered right, and proven to stay so under every change of "
        f"an L2 length below {s.radius:g} on [0, 1]. {len(found.trials)} candidates were tried on {found.images[0]} "
        f"images; the best were counted again on {found.images[1]} others with other noise."
    )
    rows = [_row(p, ", ".join(n for n, c in found.chosen.items() if c is p)) for p in found.finalists]
    columns = ["UNet calls an answer", "Certified", "Answered right"]
    rule = f"At most {s.final_n} answers an image (the search: {s.n}), alpha {s.alpha:g}; fewer where it is settled."
    sections = [
        Section(title, [words], [Cards(cards)], top=True),
        Section("Certified accuracy by noise", parts=[Figures([Figure(_plot(found), "Gray: the search.")])]),
        Section("Finalists", parts=[Table(["Preset", *columns], rows, columns), Notes([rule])]),
    ]
    write_page(path, page(title, sections, {name: str(fact) for name, fact in found.facts.items()}), "--report")


def _row(point: Point, name: str) -> Row:
    assert point.attacked is not None
    cells = []
    for score in (point.attacked, point.clean):
        low, high = score.interval
        below = [f"{100 * low:.1f} to {100 * high:.1f}", f"{score.right} of {score.images}"]
        cells.append(Cell(f"{100 * score.fraction:.1f} %", below))
    title = Cell(name or f"trial {point.number}", [point.candidate.summary()])
    return Row([title, str(point.calls), *cells], "default" if name else "")


def _plot(found: CertifiedTuning) -> Markup:
    def sigma(point: Point) -> float:
        return float(point.candidate.preset.method.top_level)

    points = [*found.trials, *found.finalists]
    plot = Plot(Scale.over(map(sigma, points), log=True, margin=0.08), Scale(0.0, 1.0, unit="%"), "sigma")
    plot.dots([sigma(p) for p in found.trials], [p.robust for p in found.trials], "soft", "trials", radius=2.0)
    for point in found.finalists:
        assert point.attacked is not None
        plot.between(sigma(point), *point.attacked.interval, "good")
    plot.dots(
        [sigma(p) for p in found.finalists], [p.robust for p in found.finalists], "good", "finalists, counted again"
    )
    return plot.svg("certified accuracy by noise")
