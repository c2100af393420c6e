"""Runs ``edgepure`` inside the process of a test: cheaper than another process, where signals do not matter."""

from __future__ import annotations

import io
import json
import re
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any

import pytest
from typer.testing import CliRunner

from edgepure.cli.app import app


def invoke(*arguments: object) -> Any:
    """What typer's runner gives: exit_code, stdout, stderr."""
    return CliRunner().invoke(app, [str(a) for a in arguments])


def refused(*arguments: object) -> str:
    """The code of the error that a command ends with, read from --json."""
    done = invoke(*arguments, "--json")
    assert done.exit_code != 0, done.output
    return str(json.loads(done.stdout)["error"]["code"])


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@dataclass(frozen=True)
class Shown:
    """What a person saw."""

    code: int
    lines: list[str]
    stderr: str


def on_a_terminal(monkeypatch: pytest.MonkeyPatch, *arguments: object, columns: int = 80) -> Shown:
    """Run a command whose results go to a terminal of so many columns."""
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("LINES", "24")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    screen, errors = Terminal(), io.StringIO()
    with redirect_stdout(screen), redirect_stderr(errors):
        code = app([str(a) for a in arguments], prog_name="edgepure", standalone_mode=False)
    text = re.sub(r"\x1b\[[0-9;]*m", "", screen.getvalue())
    return Shown(code or 0, text.split("\n"), errors.getvalue())
