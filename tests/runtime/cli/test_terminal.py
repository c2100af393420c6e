"""What 80 columns show: no line is longer, no word and no number is broken."""

from __future__ import annotations

import re
import shutil
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from in_process import Terminal, on_a_terminal
from PIL import Image
from tiny_bundle import images

from edgepure.cli.tables import folded, table

WORDS = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=30)


@given(st.lists(WORDS, min_size=1, max_size=9, unique=True), st.data())
def test_every_word_of_a_table_stays_whole(columns: list[str], data: st.DataObject) -> None:
    row = data.draw(st.lists(WORDS, min_size=len(columns), max_size=len(columns)))
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(Terminal()) as screen:
        patch.setenv("COLUMNS", "80")
        patch.setenv("TERM", "dumb")
        table(columns, [row])
    shown = re.sub(r"\x1b\[[0-9;]*m", "", screen.getvalue())
    assert all(len(line) <= 80 for line in shown.split("\n"))
    assert {*columns[1:], *row} <= set(re.split(r"[\s;]+", shown))


def test_what_fits_stays_and_pipes_are_never_wrapped() -> None:
    assert folded("short", 80) == "short"
    assert folded("long " * 40, None) == "long " * 40
    assert max(map(len, folded("long " * 40, 80).split("\n"))) <= 80


VERBS: dict[str, tuple[str, ...]] = {
    "inspect": ("inspect", "BUNDLE"),
    "verify": ("verify", "BUNDLE", "--threads", "1"),
    "classify": ("classify", "BUNDLE", "IMAGES", "--preset", "adaptive", "--threads", "1"),
    "purify": ("purify", "BUNDLE", "IMAGES", "-o", "OUT", "--threads", "1"),
    "plan": ("plan", "BUNDLE", "--wide"),
    "presets": ("presets",),
    "presets of a bundle": ("presets", "BUNDLE"),
    "bench": ("bench", "BUNDLE", "--batch", "1", "--repeats", "1", "--threads", "1"),
}


@pytest.mark.parametrize("name", VERBS)
def test_80_columns(name: str, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / "a_folder_with_a_name" / "and_another_one_in_it"  # paths are what makes lines long
    deep.mkdir(parents=True)
    bundle = shutil.copytree(tiny_bundle, deep / "tiny")
    (deep / "photographs_of_today").mkdir()
    for number, image in enumerate(images(2)):
        picture = Image.fromarray(np.rint(255.0 * image[0]).astype(np.uint8))
        picture.save(deep / "photographs_of_today" / f"photograph_{number}.png")
    monkeypatch.chdir(deep)
    places = {"BUNDLE": str(bundle.relative_to(deep)), "IMAGES": "photographs_of_today", "OUT": "purified_pictures"}
    shown = on_a_terminal(monkeypatch, *(places.get(a, a) for a in VERBS[name]))
    assert shown.code == 0, shown.stderr
    assert [line for line in shown.lines if len(line) > 80 and " " in line.strip()] == []
    for before, after in zip(shown.lines, shown.lines[1:], strict=False):  # a number that was broken goes on at once
        assert not (len(before.rstrip()) == 80 and re.match(r"[\d.]", after)), (before, after)
