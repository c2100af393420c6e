"""One way to make a page: sections of words, cards, tables, figures and pictures become one HTML file.

A page stands alone: no script, no font and no file from elsewhere. Text is escaped by the template (``page.html``), and
a pair of backticks in it makes code.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import EdgepureError
from ..files.atomic import write_text
from .pictures import Picture
from .text import Markup, printable_lines

if TYPE_CHECKING:
    from jinja2 import Template


@dataclass(frozen=True)
class Card:
    """One number that a reader should see first. ``tone``: good, fair or bad."""

    label: str
    value: str
    below: str = ""
    tone: str = ""


@dataclass(frozen=True)
class Cards:
    """The cards of a section, side by side."""

    kind: ClassVar[str] = "cards"
    cards: Sequence[Card]


@dataclass(frozen=True)
class Cell:
    """A cell of a table that is more than text.

    Attributes:
        text: the main line; ``strong`` makes it bold.
        small: lines below it.
        tone: good, fair or bad.
        bar: a share in [0, 1], drawn as a bar of ``bar_tone``.
    """

    text: str
    small: Sequence[str] = ()
    tone: str = ""
    strong: bool = False
    bar: float | None = None
    bar_tone: str = ""


@dataclass(frozen=True)
class Row:
    """Cells from left to right. ``mark``: ``default`` or ``plain`` tints the row."""

    cells: Sequence[str | Cell]
    mark: str = ""


@dataclass(frozen=True)
class Table:
    """A table. ``right``: columns of numbers; ``heads``: the first cell of a row is its heading."""

    kind: ClassVar[str] = "table"
    columns: Sequence[str]
    rows: Sequence[Row]
    right: Sequence[str] = ()
    title: str = ""
    heads: bool = True
    narrow: bool = False

    @classmethod
    def of(cls, columns: Sequence[str], rows: Sequence[Sequence[str | Cell]], **more: Any) -> Table:
        """A table whose rows have no mark."""
        return cls(columns, [Row(row) for row in rows], **more)


@dataclass(frozen=True)
class Figure:
    """A plot (`edgepure.report.plots`) with words above and below."""

    plot: Markup
    caption: str = ""
    title: str = ""


@dataclass(frozen=True)
class Figures:
    """Plots, two beside each other where there is room."""

    kind: ClassVar[str] = "figures"
    figures: Sequence[Figure]


@dataclass(frozen=True)
class Strip:
    """One image and what happened to it."""

    title: str
    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Strips:
    """Strips of pictures. ``wide``: each takes the whole width of the page."""

    kind: ClassVar[str] = "strips"
    strips: Sequence[Strip]
    wide: bool = False


@dataclass(frozen=True)
class Notes:
    """Small print."""

    kind: ClassVar[str] = "notes"
    lines: Sequence[str]
    numbered: bool = False


@dataclass(frozen=True)
class Facts:
    """Names and values."""

    kind: ClassVar[str] = "facts"
    facts: Mapping[str, str]


Part = Cards | Table | Figures | Strips | Notes | Facts


@dataclass(frozen=True)
class Verdict:
    """The answer of a page in one sentence. ``tone``: good, fair or bad."""

    text: str
    tone: str


@dataclass(frozen=True)
class Section:
    """A heading, a verdict, paragraphs, and what follows. ``top``: the heading is that of the page."""

    title: str
    words: Sequence[str] = ()
    parts: Sequence[Part] = ()
    verdict: Verdict | None = None
    top: bool = False


def page(title: str, sections: Sequence[Section], facts: Mapping[str, str] | None = None) -> str:
    """A whole page as UTF-8 text. ``facts``: what its numbers were measured with, at the end."""
    css = Markup(Path(__file__).with_name("page.css").read_text(encoding="utf-8"))
    return printable_lines(_template().render(title=title, css=css, sections=sections, facts=facts or {}))


def write_page(path: str | PathLike[str], text: str, option: str) -> Path:
    """Write a page, and the folder around it; it appears whole or not at all. ``option``: what chooses the place.

    Raises:
        EdgepureError: the file cannot be written.
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EdgepureError(
            f"the report cannot be written to {target.parent}: {error.strerror or error}; choose another place with "
            f"{option}",
            code="E-report-place",
        ) from None
    write_text(target, text)
    return target


@lru_cache(maxsize=1)
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters["words"] = _words
    return environment.from_string(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))


def _words(text: str) -> Markup:
    from markupsafe import escape

    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))
