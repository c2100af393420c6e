"""Every table is readable in a terminal of 80 columns: no word and no number is broken or cut off."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from edgepure.cli import output
from edgepure.cli.app import app

WIDTH = 80


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What tables print on a terminal of 80 columns."""
    written = io.StringIO()
    console = Console(file=written, width=WIDTH, highlight=False, soft_wrap=True, color_system=None)
    monkeypatch.setattr(output, "stdout", lambda: console)
    return written


def test_words_wrap_and_numbers_do_not(screen: io.StringIO) -> None:
    words = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
    output.table(("name", "number", "words"), [("a-long-name", "1.23456e-07", words)], right=("number",))
    lines = screen.getvalue().splitlines()
    assert all(len(line) <= WIDTH for line in lines) and len(lines) > 3
    text = screen.getvalue().split()
    assert "1.23456e-07" in text and set(words.split()) <= set(text)


def test_a_row_that_cannot_fit_becomes_a_record(screen: io.StringIO) -> None:
    columns = ("file", *(f"column{i}" for i in range(9)))
    output.table(columns, [("weights.bin", *("0123456789" for _ in range(9)))] * 2, right=columns[1:])
    lines = screen.getvalue().splitlines()
    assert lines[0] == "weights.bin" and all(len(line.rstrip()) <= WIDTH for line in lines)
    assert screen.getvalue().count("0123456789") == 18 and "column8 0123456789" in " ".join(screen.getvalue().split())


def test_headings_may_wrap_where_numbers_are_short(screen: io.StringIO) -> None:
    columns = tuple(f"a heading number {i}" for i in range(7))
    output.table(columns, [("1", "2", "3", "4", "5", "6", "7")], right=columns)
    assert all(len(line) <= WIDTH for line in screen.getvalue().splitlines())
    assert screen.getvalue().splitlines()[-1].split() == list("1234567")


def test_what_is_wide_enough_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """A pipe has no width: one line a row."""
    output.table(("name", "words"), [("a", "word " * 60)])
    assert len(capsys.readouterr().out.strip().splitlines()) == 3


@pytest.mark.parametrize("verb", ["verify", "inspect", "classify", "plan", "presets"])
def test_tables_of_verbs(verb: str, screen: io.StringIO, tiny_bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "a folder of which the name is rather long" / "images"
    folder.mkdir(parents=True)
    from PIL import Image

    Image.new("L", (16, 16), 99).save(folder / "image.png")
    bundle = shutil.copytree(tiny_bundle, tmp_path / "tiny")
    more = {"classify": [str(folder), "--preset", "heterogeneous"]}.get(verb, [])
    done = CliRunner().invoke(app, [verb, *([] if verb == "presets" else [str(bundle)]), *more])
    assert done.exit_code == 0, done.output
    shown = screen.getvalue()
    assert shown and "…" not in shown
    longest = max(len(word) for word in shown.split())
    assert all(len(line.rstrip()) <= max(WIDTH, longest + 2) for line in shown.splitlines())
