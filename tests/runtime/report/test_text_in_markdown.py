"""A bundle's name is anybody's text: on a card it is words, and no heading, link, picture or HTML."""

from __future__ import annotations

import pytest

from edgepure.report.text import in_markdown


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("digits 2", "digits 2"),
        ("a\n\n# Robust: 100 %\r\n", r"a \# Robust: 100 %"),
        ("<script>x</script>", r"\<script\>x\</script\>"),
        ("![a](http://e) | *b*", r"\!\[a\](http://e) \| \*b\*"),
        ("\x1b[31mred\u202e", r"\\x1b\[31mred\\u202e"),
    ],
)
def test_names_are_words(name: str, shown: str) -> None:
    assert in_markdown(name) == shown
