"""Where words go: results to stdout, everything else to stderr. All of it is `edgepure.report.text`."""

from __future__ import annotations

import json
import sys
from shutil import get_terminal_size
from typing import Any, TextIO

from ..report.text import printable
from .tables import folded, table, verdict

__all__ = ["counted", "emit_json", "note", "number", "say", "size", "table", "verdict"]


def emit_json(data: Any) -> None:
    """Print one JSON document to stdout. Numbers that JSON does not know become null."""
    plain = (sys.stdout.encoding or "ascii").lower().replace("-", "") != "utf8"
    text = json.dumps(_finite(data), indent=2, ensure_ascii=plain, allow_nan=False)
    lines = ("".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in line) for line in text.split("\n"))
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def say(text: str) -> None:
    """Print one line of results to stdout. Empty lines may stand around it."""
    line = text.strip("\n")
    before, _, after = text.partition(line) if line else (text, "", "")
    sys.stdout.write(f"{before}{folded(printable(line), _columns(sys.stdout))}{after}\n")


def note(text: str) -> None:
    """Print one line to stderr."""
    sys.stderr.write(folded(printable(text), _columns(sys.stderr)) + "\n")
    sys.stderr.flush()


def counted(count: int, what: str) -> str:
    """``1 image``, ``2 images``."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


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


def _columns(stream: TextIO) -> int | None:
    """Of the terminal; None where it is a file or a pipe, whose lines stay whole."""
    return get_terminal_size().columns if stream.isatty() else None


def _finite(data: Any) -> Any:
    if isinstance(data, float) and (data != data or data in (float("inf"), float("-inf"))):
        return None
    if isinstance(data, dict):
        return {str(key): _finite(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_finite(value) for value in data]
    return data
