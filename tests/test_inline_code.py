"""What pages say in passing: calls of ours can be made so, names and files of the repository are there."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
#: CHANGELOG tells of what was, docs/results of what was run then.
PAGES = sorted(
    path
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("samples/**/*.md"), *ROOT.glob("tests/*.md"),
                 *ROOT.glob("docker/*.md"), *ROOT.glob("benchmarks/*.md"))
    if path.name != "CHANGELOG.md"
)  # fmt: skip
FOLDERS = ("benchmarks", "calibration", "docker", "docs", "export", "runtime", "samples", "tests", "tools")
PACKAGES = {"edgepure": "runtime", "edgepure_export": "export", "edgepure_calibration": "calibration"}
#: Groups of entry points, and a span of traces.
OTHERS = {"edgepure.commands", "edgepure.attacks", "edgepure.sources", "edgepure.infer"}
NAME = re.compile(rf"({'|'.join(PACKAGES)})(\.\w+)+(\(.*\))?(\.\w+\(.*\))?")
PLACE = re.compile(rf"({'|'.join((*FOLDERS, *PACKAGES))})(/[\w.*-]+)+/?")


def spans() -> Iterator[tuple[str, str]]:
    """(where, text) of what stands between backticks, blocks of code left out."""
    for path in PAGES:
        text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        for found in re.findall(r"`([^`]+)`", text):
            yield str(path.relative_to(ROOT)), " ".join(found.split())


def fault(code: str) -> str:
    """What is wrong with an expression that begins with one of our packages; empty if nothing is."""
    try:
        expression = ast.parse(code, mode="eval").body
        _value(expression, None)
    except (AttributeError, ImportError, SyntaxError, TypeError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _value(node: ast.expr, beside: Any) -> Any:
    """What a name means, as far as that can be known without calling anything; None: that cannot be known.

    ``beside``: the module of the function whose argument this is; plain names that are called are its.
    """
    if isinstance(node, ast.Name):
        return importlib.import_module(node.id) if node.id in PACKAGES else None
    if isinstance(node, ast.Attribute):
        owner = _value(node.value, beside)
        if owner is None:
            return None
        if inspect.ismodule(owner) and not hasattr(owner, node.attr):
            return importlib.import_module(f"{owner.__name__}.{node.attr}")
        return getattr(owner, node.attr)
    if isinstance(node, ast.Call):
        function = getattr(beside, node.func.id) if isinstance(node.func, ast.Name) else _value(node.func, beside)
        if function is None:
            return None
        module = importlib.import_module(function.__module__.rpartition(".")[0])
        for argument in node.args:
            _value(argument, module)
        if ... not in [a.value for a in node.args if isinstance(a, ast.Constant)]:
            named = {keyword.arg: None for keyword in node.keywords if keyword.arg}
            inspect.signature(function).bind_partial(*(None for _ in node.args), **named)
        return function if inspect.isclass(function) else None
    return None


@pytest.mark.needs("torch")
def test_calls_and_names_are_right() -> None:
    asked = [(where, text) for where, text in spans() if NAME.fullmatch(text) and text not in OTHERS]
    wrong = [f"{where}: {text}: {found}" for where, text in asked if (found := fault(text))]
    assert not wrong, "\n".join(wrong)


def test_files_are_there() -> None:
    wrong = []
    for where, text in spans():
        if not PLACE.fullmatch(text):
            continue
        top, _, rest = text.rstrip("/").partition("/")
        place = f"{PACKAGES[top]}/{text}".rstrip("/") if top in PACKAGES else f"{top}/{rest}"
        if not any(found for end in ("", ".py") for found in ROOT.glob(place + end)):
            wrong.append(f"{where}: {text}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.needs("torch")
@pytest.mark.parametrize(
    "code",
    [
        'edgepure_calibration.tune.tune("digits", data, calls=10)',
        'edgepure_calibration.quantize.quantize(path, Request("int8"), images)',
        "edgepure.no_such_name",
        "edgepure.Service(purifier).no_such_method(image)",
        "edgepure.load(path, speed=11)",
    ],
)
def test_wrong_ones_are_found(code: str) -> None:
    assert NAME.fullmatch(code)
    assert fault(code)
