"""One HTML page of plots and tables, with nothing beside it: what calibration and quantization report in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from edgepure.errors import ConfigError
from edgepure.files.atomic import write_text
from edgepure.report.style import CSS
from edgepure.report.text import printable_lines

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title><style>{{ css | safe }}
img{aspect-ratio:auto;image-rendering:auto;background:#fff}</style></head><body><main>
<header><h1>{{ title }}</h1><p>{{ summary }}</p></header>
{% for figure in figures %}<section><h2>{{ figure.title }}</h2><p>{{ figure.note }}</p>
<img src="{{ figure.uri }}" alt="{{ figure.title }}"></section>
{% endfor %}{% for table in tables %}<section><h2>{{ table.title }}</h2><p>{{ table.note }}</p>
<div class="scroll"><table><thead><tr>{% for name in table.columns %}<th>{{ name }}</th>{% endfor %}</tr></thead><tbody>
{% for row in table.rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div></section>
{% endfor %}<footer class="notes"><h2>What these numbers are</h2>{% for note in notes %}<p>{{ note }}</p>{% endfor %}
</footer></main></body></html>
"""


@dataclass(frozen=True)
class Figure:
    """A plot with its heading and a sentence below."""

    title: str
    note: str
    uri: str


@dataclass(frozen=True)
class Table:
    """Cells in text, row by row."""

    title: str
    note: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def check_tools() -> None:
    """Raise ConfigError now, and not after a long measurement, if a report cannot be made."""
    try:
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"a report needs Matplotlib and Jinja2, but {error.name} is not installed: pip install "
            "edgepure[calibration]"
        ) from None


def write_page(
    path: str | PathLike[str],
    *,
    title: str,
    summary: str,
    figures: Sequence[Figure],
    tables: Sequence[Table],
    notes: Sequence[str],
) -> Path:
    """Write the page, whole or not at all.

    Raises:
        EdgepureError: Matplotlib or Jinja2 is missing, or the file cannot be written.
    """
    check_tools()
    from jinja2 import Environment

    page = Environment(autoescape=True).from_string(_PAGE)
    text = page.render(title=title, css=CSS, summary=summary, figures=figures, tables=tables, notes=notes)
    target = Path(path)
    write_text(target, printable_lines(text))
    return target
