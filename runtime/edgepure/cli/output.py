"""Where words go: results to stdout, everything else to stderr. All of it is `edgepure.report.text`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, EdgepureError
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


def emit_json(data: Any) -> None:
    """Print one JSON document to stdout. Numbers that JSON does not know become null."""
    text = json.dumps(_finite(data), indent=2, ensure_ascii=False, allow_nan=False)
    lines = ("".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in line) for line in text.split("\n"))
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def say(text: str) -> None:
    """Print one line of results to stdout. Empty lines may stand around it."""
    line = text.strip("\n")
    before, _, after = text.partition(line) if line else (text, "", "")
    sys.stdout.write(f"{before}{printable(line)}{after}\n")


def note(text: str) -> None:
    """Print one line to stderr."""
    sys.stderr.write(printable(text) + "\n")
    sys.stderr.flush()


def prepare_file(path: Path | None, option: str) -> None:
    """Make the folder of a file that long work ends with, so that nobody learns at the end that it cannot be written.

    Raises:
        ConfigError: the path names a folder.
        EdgepureError: its folder cannot be made or written to.
    """
    if path is None:
        return
    if path.is_dir():
        raise ConfigError(f"{option} {path} is a folder; give the name of a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EdgepureError(
            f"{option} {path}: its folder cannot be made ({error.strerror or error}); choose another place"
        ) from error
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise EdgepureError(f"{option} {path}: its folder cannot be written to; choose another place")


def counted(count: int, what: str) -> str:
    """``1 image``, ``2 images``."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


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


def number(value: float | None, digits: int = 3) -> str:
    """A number for a table; a dash for None."""
    return "-" if value is None else f"{value:.{digits}g}"


def size(count: int) -> str:
    """Bytes for people: ``2.3 MB``."""
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 1000.0:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000.0
    return f"{value:.2f} GB"


def _finite(data: Any) -> Any:
    if isinstance(data, float) and (data != data or data in (float("inf"), float("-inf"))):
        return None
    if isinstance(data, dict):
        return {str(key): _finite(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_finite(value) for value in data]
    return data
