"""docs/errors.md: every code that an error of edgepure can carry, read from the source."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import edgepure.errors
from edgepure.errors import EdgepureError

from .page import ROOT, Page, table

PACKAGES = ("runtime/edgepure", "export/edgepure_export", "calibration/edgepure_calibration")


@dataclass
class Code:
    """What is known of one code."""

    classes: set[str] = field(default_factory=set)
    places: set[str] = field(default_factory=set)
    shapes: list[str] = field(default_factory=list)


def kinds() -> dict[str, type[EdgepureError]]:
    """The classes of errors by name."""
    found = vars(edgepure.errors).values()
    return {c.__name__: c for c in found if isinstance(c, type) and issubclass(c, EdgepureError)}


def shape(node: ast.expr) -> str:
    """A sentence as it stands in the source, with ... for what is filled in."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "..." for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return shape(node.left) + shape(node.right)
    return "..."


def raised(path: Path) -> Iterator[tuple[str, str, str]]:
    """Code, class and sentence of every error that a file makes with a code."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if not isinstance(node, ast.Call):
            continue
        named = [k.value for k in node.keywords if k.arg == "code"]
        if not named or not isinstance(node.func, ast.Name | ast.Attribute):
            continue
        name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
        codes = [c.value for c in ast.walk(named[0]) if isinstance(c, ast.Constant) and str(c.value).startswith("E-")]
        for code in codes:
            yield str(code), name, shape(node.args[0]) if node.args else "..."


def codes() -> dict[str, Code]:
    """Every code of the three packages."""
    found: dict[str, Code] = {}
    for name, kind in kinds().items():
        entry = found.setdefault(kind.code, Code())
        entry.classes.add(name)
        entry.shapes.append("(whatever of this class has no code of its own)")
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            place = path.relative_to(ROOT / package).parts[0].removesuffix(".py")
            for code, name, sentence in raised(path):
                entry = found.setdefault(code, Code())
                entry.classes |= {name} & set(kinds())
                entry.places.add(place)
                if sentence not in (*entry.shapes, "..."):
                    entry.shapes.append(sentence)
    return found


def fill(page: Page) -> None:
    """Put the table of classes and the table of codes in."""
    known = kinds()
    page.fill(
        "classes",
        lambda name, old: table(
            ("class", "exit code", "what it is"),
            (
                (
                    f"`{n}`",
                    str(k.exit_code),
                    " ".join((k.__doc__ or "").split("\n\n")[0].split()).split(" (exit code")[0],
                )
                for n, k in known.items()
            ),
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
                    "<br>".join(_short(sentence) for sentence in entry.shapes[:3])
                    + (f"<br>and {len(entry.shapes) - 3} more" if len(entry.shapes) > 3 else ""),
                )
                for code, entry in sorted(codes().items())
            ),
        ),
    )


def _first(kind: type) -> str:
    words = " ".join((kind.__doc__ or "").split("\n\n")[0].split())
    return re.sub(r" \(exit code \d+\)", "", words)


def _short(sentence: str) -> str:
    text = " ".join(sentence.split())
    return text if len(text) <= 160 else text[:157] + "..."
