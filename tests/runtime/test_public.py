"""What `import edgepure` and its rooms show: complete, lazy, and never replaced by a module of the same name."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import edgepure
from edgepure import errors

ROOT = Path(edgepure.__file__).parent
#: Folders that say what they show in a stub.
ROOMS = sorted(".".join(stub.parent.relative_to(ROOT.parent).parts) for stub in ROOT.glob("**/__init__.pyi"))


def test_every_public_name_is_there() -> None:
    assert sorted(dir(edgepure)) == sorted(edgepure.__all__)
    assert {name for name in edgepure.__all__ if not hasattr(edgepure, name)} == set()


def test_every_error_is_public() -> None:
    own = {name for name, value in inspect.getmembers(errors, inspect.isclass) if value.__module__ == "edgepure.errors"}
    assert own <= set(edgepure.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing_of_this_name"):
        edgepure.nothing_of_this_name  # noqa: B018


@pytest.mark.parametrize(
    "room", [pytest.param(r, marks=pytest.mark.needs("grpc") if r == "edgepure.serve" else ()) for r in ROOMS]
)
def test_no_module_takes_the_place_of_a_name(room: str) -> None:
    """After all modules of a room were imported, its names are still what the modules define."""
    code = """
import importlib, pkgutil, sys
from types import ModuleType
room = importlib.import_module(sys.argv[1])
for module in pkgutil.iter_modules(room.__path__):
    if not module.name.startswith("__"):
        importlib.import_module(f"{room.__name__}.{module.name}")
print(*(name for name in room.__all__ if isinstance(getattr(room, name), ModuleType)))
"""
    done = subprocess.run([sys.executable, "-c", code, room], capture_output=True, text=True, timeout=120)
    assert (done.stdout.strip(), done.stderr) == ("", "")


def test_no_file_of_the_runtime_names_the_other_packages() -> None:
    """Not in a comment either: what they add is found by entry points."""
    texts = (
        p for p in ROOT.rglob("*") if p.suffix in (".py", ".pyi", ".json", ".md", ".html", ".j2", ".typed", ".css")
    )
    named = [
        str(p.relative_to(ROOT)) for p in texts if re.search(r"edgepure_(export|calibration)", p.read_text("utf-8"))
    ]
    assert named == []
