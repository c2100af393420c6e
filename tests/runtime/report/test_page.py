"""Pages: what they say is escaped, they stand alone, and nothing on them is cut off in a real browser."""

from __future__ import annotations

import re
from math import inf, nan

import numpy as np
import pytest
from chromium import overflows

from edgepure.report import (
    Card,
    Cards,
    Cell,
    Figure,
    Figures,
    Notes,
    Picture,
    Plot,
    Scale,
    Section,
    Strip,
    Strips,
    Table,
    Verdict,
    page,
)
from edgepure.report.page import Facts, Row
from edgepure.report.plots import histogram, histograms, log_lines

LONG = "heterogeneous-official-with-a-name-that-somebody-made-far-too-long"


def hard_page() -> str:
    """A page with everything, and all of it large."""
    numbers = [f"number {i}" for i in range(6)]
    table = Table(
        ["what", *numbers],
        [
            Row(
                [Cell(LONG, ["words " * 9]), *[Cell("0.001234 %", ["0.1 to 0.9"], bar=0.4)] * 6],
                "default",
            )
        ],
        numbers,
    )
    plot = Plot(Scale(0.0, 1.0, unit="%"), Scale(1e-6, 1.0, log=True), "across")
    for i in range(8):
        plot.line([0.0, 0.5, 1.0], [1e-6, 0.1 * (i + 1), 1.0], f"s{i}", f"{LONG[:28]} {i}", dots=True)
    plot.text(1.0, 1.0, "at the corner", "good")
    pictures = [Picture(np.full((1, 4, 4), 0.5, np.float32), LONG, LONG, right=bool(i % 2)) for i in range(9)]
    card, strip = Card(LONG, "not recorded", LONG), Strip(LONG, pictures)
    small = Table.of(["a", "b"], [["1", "2"]], narrow=True)
    return page(
        LONG,
        [
            Section(LONG, ["words " * 40], [Cards([card] * 5)], Verdict(LONG * 3, "bad"), top=True),
            Section("Table", parts=[table, small, Notes([LONG * 2], numbered=True)]),
            Section("Plots", parts=[Figures([Figure(plot.svg("lines"), LONG, LONG)] * 3)]),
            Section("Pictures", parts=[Strips([strip], wide=True), Strips([strip] * 3)]),
            Section("Facts", parts=[Facts({LONG: LONG * 2})]),
        ],
        {LONG: LONG},
    )


def test_nothing_is_cut_off() -> None:
    assert overflows(hard_page()) == []


def test_a_cut_is_seen() -> None:
    """The test above can fail."""
    text = page("t", [Section("t", parts=[Notes(["words"])])])
    wide = text.replace("words", '<b style="white-space:nowrap">' + "words " * 300 + "</b>")
    assert any("beyond the window" in found for found in overflows(wide))


def test_text_is_escaped_and_backticks_make_code() -> None:
    text = page("<b>", [Section("<i>", ["run `a <b>` & c"], [Notes(["<script>"])])], {"<k>": "<v>"})
    assert "<code>a &lt;b&gt;</code> &amp; c" in text
    assert not re.search(r"<(b|i|k|v|script)>", text)


def test_an_attribute_cannot_be_left() -> None:
    shown = Picture(np.zeros((1, 2, 2), np.float32), 'x" onerror="alert(1)')
    text = page("t", [Section("t", parts=[Strips([Strip("s", [shown])])])])
    assert 'alt="x&#34; onerror=&#34;alert(1)"' in text


def test_equal_input_gives_equal_pages() -> None:
    assert hard_page() == hard_page()


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("values", [[1.0], [0.0, 0.0], [1e-9, 1e6], [inf, nan, 2.0], [3.0, 3.0000001]])
def test_scales_hold_their_values_and_have_ticks(values: list[float], log: bool) -> None:
    scale = Scale.over(values, log=log, margin=0.1)
    assert scale.high > scale.low
    assert all(0.0 <= scale.place(v) <= 1.0 for v in values)
    assert 1 <= len(scale.ticks()) <= 9
    assert all(-1e-9 <= scale.place(v) <= 1.0 + 1e-9 for v, _ in scale.ticks())


def test_plots_of_what_is_not_finite_have_finite_places() -> None:
    drawn = log_lines([0, 1, 2], [("a", "accent", [0.0, nan, inf]), ("b", "bound", [1e-3, 1e-3, 1e-3])], "row", mark=1)
    empty = histogram(np.array([nan, inf]), "logits")
    both = histograms([("good", "a", np.zeros(3)), ("bad", "b", np.ones(2))], "x", np.linspace(0, 1, 4), (0.5, "mu"))
    for svg in (drawn, empty, both):
        assert "nan" not in svg and "inf" not in svg
