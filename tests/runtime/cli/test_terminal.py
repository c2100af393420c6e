"""What 80 columns show: no line is longer, no word and no number is broken."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from in_process import on_a_terminal
from PIL import Image
from tiny_bundle import images

from edgepure.cli.tables import folded, records

WORDS = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=30)


@given(st.lists(WORDS, min_size=3, max_size=9), st.data())
def test_every_pair_of_a_row_stays_whole(columns: list[str], data: st.DataObject) -> None:
    row = data.draw(st.lists(WORDS, min_size=len(columns), max_size=len(columns)))
    lines = list(records(columns, [row], 80))
    assert all(len(line) <= 80 for line in lines)
    text = "\n".join(lines)
    assert text.startswith(f"{row[0]}:")
    assert all(f"{name} {cell}" in text for name, cell in zip(columns[1:], row[1:], strict=True))


def test_a_table_of_two_columns_keeps_them() -> None:
    value = " ".join(["a sentence that is long"] * 8)
    lines = list(records(("what", "value"), [("name", "x"), ("reason", value)], 80))
    assert lines[0] == "name    x"
    assert lines[1].startswith("reason  a sentence") and lines[2].startswith("        ")
    assert all(len(line) <= 80 for line in lines)
    assert " ".join(" ".join(lines[1:]).split()) == f"reason {value}"


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
        assert not (len(before) == 80 and re.match(r"[\d.]", after)), (before, after)
