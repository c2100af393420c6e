"""Text of strangers, as it may go to a terminal or a page.

Names of files, of a bundle and of its classes may hold anything. What in them would steer a terminal, begin a new line
or show other text than is there is written as an escape.
"""

from __future__ import annotations

import re


def printable(text: str) -> str:
    """The text with every character that is not printed as itself escaped: controls, line ends, direction marks."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def printable_lines(text: str) -> str:
    """The same for a text of many lines, which stay."""
    return "\n".join(map(printable, text.split("\n")))


def in_markdown(text: str) -> str:
    """A name that anybody may have chosen, on one line and without links, pictures and HTML."""
    return re.sub(r"([\\`*_\[\]<>&!|#])", r"\\\1", printable(" ".join(text.split())))


class Markup(str):
    """HTML or SVG of our own, which a template takes as it is."""

    def __html__(self) -> str:
        return self
