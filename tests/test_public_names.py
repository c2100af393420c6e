"""Samples, lessons and pages show what is public: names of `edgepure`, or of a room's own list, and nothing deeper."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("edgepure", "edgepure_export", "edgepure_calibration")
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(ROOT.glob("docs/**/*.md")),
    *sorted(ROOT.glob("samples/**/*.md")),
]
#: samples/gpu_check looks at the engines from inside, as tests do.
PROGRAMS = sorted(p for p in ROOT.glob("samples/**/*.py") if "gpu_check" not in p.parts)


def programs() -> Iterator[tuple[str, str]]:
    """(where, source) of every program and of every block of Python on a page."""
    for path in PROGRAMS:
        yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")
    for path in PAGES:
        for number, block in enumerate(re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)):
            yield f"{path.relative_to(ROOT)}, block {number}", block


def hidden(source: str) -> list[str]:
    """What a program imports of the three packages that is in no public list."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if _ours(alias.name) and not _public(alias.name)]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and _ours(node.module or ""):
            module = str(node.module)
            found += [f"{module}:{a.name}" for a in node.names if not _public(module, a.name)]
    return found


def _ours(module: str) -> bool:
    return module.split(".")[0] in PACKAGES


def _public(module: str, name: str | None = None) -> bool:
    """Whether a module is a package or one of its rooms, and shows the name."""
    if module.count(".") > 1:
        return False
    return name is None or name in _shown(module)


@cache
def _shown(module: str) -> set[str]:
    """What a package or a room lists; of a room that is one file, what it defines."""
    found = importlib.import_module(module)
    if hasattr(found, "__all__"):
        return set(found.__all__)
    if hasattr(found, "__path__"):
        return set()
    tree = ast.parse(Path(str(found.__file__)).read_text(encoding="utf-8"))
    names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    names |= {
        t.id for node in tree.body if isinstance(node, ast.Assign) for t in node.targets if isinstance(t, ast.Name)
    }
    return {name for name in names if not name.startswith("_")}


@pytest.mark.parametrize(("where", "source"), list(programs()), ids=lambda value: value if len(value) < 100 else "")
def test_only_public_names_are_shown(where: str, source: str) -> None:
    assert hidden(source) == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import edgepure\nfrom edgepure import load\nfrom edgepure.rows import Row\nimport numpy", []),
        ("from edgepure.rows.plan import Row", ["edgepure.rows.plan:Row"]),
        ("def f():\n    from edgepure.rows import _secret", ["edgepure.rows:_secret"]),
        ("import edgepure_export.bundle.writer", ["edgepure_export.bundle.writer"]),
    ],
)
def test_what_is_hidden_is_found(source: str, found: list[str]) -> None:
    assert hidden(source) == found
