"""docs/cli.md says what the command line does."""

from __future__ import annotations

import re
from pathlib import Path

from cli_process import run

from edgepure.cli import INTERRUPTED
from edgepure.errors import EdgepureError

DOCS = Path(__file__).resolve().parents[3] / "docs" / "cli.md"


def shell_lines() -> list[str]:
    """The commands of the page, continuation lines joined."""
    text = DOCS.read_text(encoding="utf-8").replace("\\\n", " ")
    return re.findall(r"^    \$ edgepure (.+)$", text, flags=re.MULTILINE)


def test_every_option_of_an_example_exists() -> None:
    used: dict[str, set[str]] = {}
    for line in shell_lines():
        name, *words = line.split("|")[0].split()
        used.setdefault(name, set()).update(word for word in words if word.startswith("-"))
    assert set(used) >= {"demo", "verify", "purify", "classify", "plan", "inspect", "bench", "doctor", "export"}
    for name, options in used.items():
        offered = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", run(name, "--help").stdout))
        assert options <= offered, name


def test_the_printed_plan_is_what_the_command_prints() -> None:
    text = DOCS.read_text(encoding="utf-8")
    line = next(line for line in shell_lines() if line.startswith("plan "))
    printed = [part.rstrip() for part in run(*line.split()).stdout.splitlines()]
    shown = text.split(f"$ edgepure {line}\n", 1)[1].split("\n\nOne row", 1)[0]
    assert [part.removeprefix("    ").rstrip() for part in shown.splitlines()] == printed


def test_every_exit_code_is_listed() -> None:
    text = DOCS.read_text(encoding="utf-8")
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", text, flags=re.MULTILINE)}
    assert listed == {0, 130} | {error.exit_code for error in (EdgepureError, *EdgepureError.__subclasses__())}
    assert INTERRUPTED.startswith("interrupted")


def test_every_option_that_a_sentence_names_exists() -> None:
    """In the page's own words, in help texts and in errors; the lists of options are made from the commands."""
    text = DOCS.read_text(encoding="utf-8")
    lists = re.findall(r"^  (?:-\w, )?(--[a-z0-9-]+(?:, --[a-z0-9-]+)*)", text, flags=re.MULTILINE)
    offered = {option for line in lists for option in re.findall(r"--[a-z][a-z0-9-]*", line)}
    offered |= set(re.findall(r"^\s+--[a-z-]+ / (--[a-z-]+)", text, flags=re.MULTILINE))
    of_others = {"--preload", "--install-completion"}  # gunicorn's; every program's that is made with typer
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", text + (DOCS.parent / "errors.md").read_text("utf-8")))
    assert named - of_others <= offered
