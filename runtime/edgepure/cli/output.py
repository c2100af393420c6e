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
    """Print a table to stdout. ``right``: the columns whose numbers are aligned to the right."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    result = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in columns:
        result.add_column(name, justify="right" if name in right else "left", overflow="fold")
    for row in rows:
        result.add_row(*(cell if isinstance(cell, Text) else Text(printable(str(cell))) for cell in row))
    stdout().print(result)


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
