"""Tables on stdout. In a pipe nothing is cut; on a terminal that is too narrow, the rows are written out in words."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from ..report.text import printable

if TYPE_CHECKING:
    from rich.console import Console

#: Width of tables when stdout is a file or a pipe.
_WIDE = 10_000
#: Stands for a space at which no line may break.
_TIED = "\N{NO-BREAK SPACE}"


def stdout() -> Console:
    """Rich's console for results; plain text when stdout is not a terminal."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else _WIDE)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[str] = ()) -> None:
    """Print a table to stdout. ``right``: the columns whose numbers are aligned to the right."""
    from rich.box import SIMPLE_HEAD
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

    cells = [[cell if isinstance(cell, Text) else Text(printable(str(cell))) for cell in row] for row in rows]
    result = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in columns:
        result.add_column(name, justify="right" if name in right else "left", overflow="fold")
    for row in cells:
        result.add_row(*row)
    console = stdout()
    if Measurement.get(console, console.options.update(width=_WIDE), result).maximum <= console.width:
        console.print(result)
        return
    for line in records(columns, [[cell.plain for cell in row] for row in cells], console.width):
        sys.stdout.write(line + "\n")


def records(columns: Sequence[str], rows: Iterable[Sequence[str]], width: int) -> Iterator[str]:
    """The rows of a table for ``width`` columns: ``first cell: column value, column value``, with every pair whole.

    A table of two columns keeps them; the second one is wrapped.
    """
    if len(columns) == 2:
        lines = list(rows)
        left = max((len(row[0]) for row in lines), default=0) + 2
        for first, second in lines:
            if left > width // 2:
                yield from _wrapped([first], width)
                yield from _wrapped(second.split(" "), width, "    ", "    ")
            else:
                yield from _wrapped(second.split(" "), width, first.ljust(left), " " * left)
        return
    for first, *rest in rows:
        pairs = [f"{name} {cell}" for name, cell in zip(columns[1:], rest, strict=True) if cell]
        ends = ["," if number < len(pairs) - 1 else "" for number in range(len(pairs))]
        tied = [pair.replace(" ", _TIED) if len(pair) <= width - 4 else pair for pair in pairs]
        yield from _wrapped([f"{first}:", *(pair + end for pair, end in zip(tied, ends, strict=True))], width)


def _wrapped(words: Sequence[str], width: int, first: str = "", other: str = "    ") -> list[str]:
    lines = wrap(
        " ".join(words), width, initial_indent=first, subsequent_indent=other, break_on_hyphens=False,
        break_long_words=True,
    )  # fmt: skip
    return [line.replace(_TIED, " ") for line in lines]


def folded(line: str, width: int | None) -> str:
    """A line broken between words where it would not fit; None: it stays as it is."""
    if width is None or len(line) <= width:
        return line
    indent = " " * (len(line) - len(line.lstrip(" ")))
    return "\n".join(wrap(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False))


def verdict(passed: bool) -> Any:
    """``ok`` in green or ``FAILED`` in red."""
    from rich.text import Text

    return Text("ok", style="green") if passed else Text("FAILED", style="bold red")
