"""A page with parts that are written by hand and parts that are made, each after a comment that names what makes it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class Page:
    """The text of a page while its made parts are filled in."""

    def __init__(self, text: str) -> None:
        self.text = text

    def fill(self, kind: str, make: Callable[[str, str], str]) -> None:
        """Replace what follows each line ``<!-- KIND: NAME -->``, up to ``<!-- end -->``, by ``make(NAME, what was
        there)``."""
        marked = re.compile(rf"(<!-- {kind}: ([^\n]+) -->\n)(.*?)(?=<!-- end -->)", re.DOTALL)
        self.text = marked.sub(lambda found: found[1] + make(found[2], found[3]).rstrip("\n") + "\n", self.text)

    def names(self, kind: str) -> list[str]:
        """What the markers of a kind name, in order."""
        return re.findall(rf"<!-- {kind}: ([^\n]+) -->", self.text)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)
