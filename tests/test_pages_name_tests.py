"""A page that names tests names such as there are."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "results" / "faults.md"


def named(page: str) -> list[tuple[str, str]]:
    """File and test of every ``file::name`` and of every ``::name`` after it; rows of tables alone."""
    found = []
    for row in (line for line in page.splitlines() if line.startswith("| ")):
        file = ""
        for place, name in re.findall(r"([\w/]+\.py)?::(\w+)", row.split(" | ")[-1]):
            file = place or file
            found.append((file, name))
    return found


def test_every_test_of_the_page_is_there() -> None:
    listed = named(PAGE.read_text(encoding="utf-8"))
    assert len(listed) > 80
    missing = [
        f"{file}::{name}"
        for file, name in listed
        if not (TESTS / file).is_file()
        or not re.search(rf"^\s*def test_{name}\b", (TESTS / file).read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert not missing
