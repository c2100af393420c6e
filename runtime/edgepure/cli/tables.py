"""Tables on stdout. In a pipe nothing is cut; on a terminal words wrap between words, and numbers never."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from ..report.text import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

#: Width of tables when stdout is a file or a pipe: nothing is cut off there.
_WIDE = 10_000


def stdout() -> Console:
    """Rich's console for results; plain text when stdout is not a terminal."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else _WIDE)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[str] = ()) -> None:
    """Print a table to stdout. ``right``: the columns whose numbers are aligned to the right.

    Words wrap between words, numbers never. Where the terminal is too narrow for that, every row becomes a record: its
    first cell, and below it the others with their names.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    cells = [[cell if isinstance(cell, Text) else Text(printable(str(cell))) for cell in row] for row in rows]
    console = stdout()
    widths = _widths(columns, cells, right, console.width)
    if widths is None:
        return _records(columns, cells, console)
    result = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name, width in zip(columns, widths, strict=True):
        result.add_column(name, justify="right" if name in right else "left", width=width, overflow="fold")
    for row in cells:
        result.add_row(*row)
    console.print(result)


def _widths(
    columns: Sequence[str], rows: Sequence[Sequence[Text]], right: Sequence[str], width: int
) -> list[int] | None:
    """Characters of each column, so that no word and no number is broken; None if there are too few for that."""
    from rich.cells import cell_len

    texts = [[row[i].plain for row in rows] for i in range(len(columns))]
    whole = [max(map(cell_len, [name, *column])) for name, column in zip(columns, texts, strict=True)]
    least = []
    for name, column in zip(columns, texts, strict=True):
        parts = column if name in right else [word for text in column for word in text.split(" ")]
        least.append(max(map(cell_len, [*name.split(" "), *parts])))
    room = width - sum(least) - 3 * (len(columns) - 1)
    if room < 0:
        return None
    order = sorted(range(len(columns)), key=lambda i: whole[i] - least[i])
    for place, i in enumerate(order):
        more = min(whole[i] - least[i], room // (len(order) - place))
        least[i] += more
        room -= more
    return least


def _records(columns: Sequence[str], rows: Sequence[Sequence[Text]], console: Console) -> None:
    from rich.padding import Padding
    from rich.text import Text

    for row in rows:
        console.print(Text(row[0].plain, style="bold"), soft_wrap=False)
        line = Text("; ").join(
            Text.assemble((f"{name} ", "dim"), cell) for name, cell in zip(columns[1:], row[1:], strict=True)
        )
        console.print(Padding(line, (0, 0, 0, 2)), soft_wrap=False)


def verdict(passed: bool) -> Any:
    """``ok`` in green or ``FAILED`` in red."""
    from rich.text import Text

    return Text("ok", style="green") if passed else Text("FAILED", style="bold red")


def folded(line: str, width: int | None) -> str:
    """A line broken between words where it would not fit; None: it stays as it is."""
    if width is None or len(line) <= width:
        return line
    indent = " " * (len(line) - len(line.lstrip(" ")))
    return "\n".join(wrap(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False))
