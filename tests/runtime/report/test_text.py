"""What strangers name their files and bundles steers no terminal and forges no line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import tiny_bundle
from cli_process import run
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edgepure.cli import output
from edgepure.methods.presets import Preset
from edgepure.report.page import Section, page
from edgepure.report.text import printable, printable_lines

#: Colours, a window's title, a cleared screen, another line, another direction, markup of a library for terminals.
HARM = "<b>\x1b[31m\x1b]0;t\x07\x9b2J\r\nerror: forged \u202etxt.exe\u2028 [/] [bold]"


@given(st.text())
def test_nothing_is_left_that_is_not_printed_as_itself(text: str) -> None:
    assert printable(text).isprintable()
    assert printable_lines(text).count("\n") == text.count("\n")
    if text.isprintable():
        assert printable(text) == text


def test_words_of_any_language_stay() -> None:
    for text in ("Größe 3 µm", "σκύλος", "猫", "כלב"):
        assert printable(text) == text
    assert printable("a\tb\x1b\ud800") == r"a\tb\x1b\ud800"


def test_output_keeps_its_lines_and_escapes_the_rest(capsys: pytest.CaptureFixture[str]) -> None:
    output.say(f"\n{HARM}\n")
    output.say("")
    output.note(HARM)
    output.table(("what",), [(HARM,)])
    output.emit_json({"name": HARM, "lone": "\ud800"})
    out, err = capsys.readouterr()
    for text in (*out.split("\n"), *err.split("\n")):
        assert text.isprintable()
        assert not text.startswith("error: forged")
    assert err.count("\n") == 1
    document = out[out.index("{") :]
    assert json.loads(document) == {"name": HARM, "lone": "\ud800"}


def test_a_page_has_none_of_it(tmp_path: Path) -> None:
    text = page(HARM, [Section(HARM, [HARM])], {HARM: HARM})
    assert "<title>&lt;b&gt;" in text
    assert all(line.isprintable() for line in text.split("\n"))


def test_commands_on_a_bundle_and_files_with_such_names(tmp_path: Path) -> None:
    bundle = tiny_bundle.make_tiny_bundle(tmp_path / "b\x1b[31m")
    presets = {n: Preset.parse({**data, "description": HARM}) for n, data in tiny_bundle.PRESETS.items()}
    tiny_bundle.rehash(bundle, name=HARM, classes=(HARM, f"{HARM}2"), presets=presets, attention={"blocks": [HARM]})
    images = tmp_path / "images"
    images.mkdir()
    Image.fromarray(np.full((16, 16), 99, np.uint8)).save(images / f"{HARM.replace('/', '')}.png")
    Image.new("L", (8, 8)).save(images / "wrong\x1b[31m.png")
    (images / "wrong\x1b[31m.png").rename(Path(str(images)) / "wrong\udcff.png")  # no UTF-8
    for arguments in (("inspect", bundle), ("classify", bundle, images), ("classify", bundle, images, "--json")):
        done = run(*arguments)
        assert "Traceback" not in done.stderr and "unexpected" not in done.stderr
        assert done.code == (0 if arguments[0] == "inspect" else 4)
        assert all(line.isprintable() for line in (done.stdout + done.stderr).split("\n"))
        assert not re.search(r"^error: forged", done.stdout + done.stderr, re.MULTILINE)
