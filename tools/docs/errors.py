"""docs/errors.md: every code that an error of edgepure can carry, with its sentences."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from .page import ROOT, Page, table
from .raised import kinds, modules


@dataclass
class Code:
    """What is known of one code."""

    classes: set[str] = field(default_factory=set)
    places: set[str] = field(default_factory=set)
    sentences: list[str] = field(default_factory=list)


def codes() -> dict[str, Code]:
    """Every code of the three packages."""
    found: dict[str, Code] = {}
    for name, kind in kinds().items():
        found.setdefault(kind.code, Code()).classes.add(name)
    for path, module in modules().items():
        place = path.relative_to(ROOT).parts[2].removesuffix(".py")
        for code, family, sentence in module.raised():
            entry = found.setdefault(code, Code())
            entry.classes |= {family} - {""}
            entry.places.add(place)
            whole = " ".join(sentence.split())
            if whole not in (*entry.sentences, "..."):
                entry.sentences.append(whole)
    return found


def fill(page: Page) -> None:
    """Put the table of classes and the table of codes in."""
    page.fill(
        "classes",
        lambda name, old: table(
            ("class", "exit code", "what it is"),
            ((f"`{name}`", str(kind.exit_code), _first(kind)) for name, kind in kinds().items()),
        ),
    )
    page.fill(
        "codes",
        lambda name, old: table(
            ("code", "class", "raised in", "sentence"),
            (
                (
                    f"`{code}`",
                    ", ".join(f"`{name}`" for name in sorted(entry.classes)) or "-",
                    ", ".join(sorted(entry.places)) or "-",
                    "<br>".join(sentence.replace("<", "&lt;") for sentence in entry.sentences) or "-",
                )
                for code, entry in sorted(codes().items())
            ),
        ),
    )


def _first(kind: type) -> str:
    words = " ".join((kind.__doc__ or "").split("\n\n")[0].split())
    return re.sub(r" \(exit code \d+\)", "", words)
