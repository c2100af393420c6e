"""The generated parts of docs/ are what the code makes of them today."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from edgepure.bundle.manifest import Manifest
from edgepure.cli.listing import ORDER
from tools.docs import errors, fields, raised
from tools.docs.__main__ import PAGES, stale
from tools.docs.page import ROOT, Page


def test_no_page_is_stale() -> None:
    assert sorted(stale()) == [], "run `make docs`"


def test_every_verb_has_its_section() -> None:
    page = Page((ROOT / "docs" / "cli.md").read_text(encoding="utf-8"))
    assert page.names("help") == list(ORDER)


def test_every_key_of_a_bundle_has_a_row_in_a_table() -> None:
    page = Page((ROOT / "docs" / "bundle-format.md").read_text(encoding="utf-8"))
    parts = Manifest.model_json_schema()["$defs"]
    methods = {name for name, part in parts.items() if "method" in part["properties"]} - {"EpsSpec", "Preset"}
    in_words = {"MaskArea", "MaskCalibration", "LinearReweighting", "SigmoidReweighting"}
    assert {"Manifest", *parts} - methods - in_words == set(page.names("fields"))


def test_a_page_that_was_not_made_is_noticed() -> None:
    page = Page("<!-- fields: X -->\n| `kept` | | | what it means |\n<!-- end -->\n")

    class X(BaseModel):
        kept: int
        new: str | None = None

    page.fill("fields", lambda name, old: fields.fields(X.model_json_schema(), old))
    assert "| `kept` | integer | required | what it means |\n| `new` | string or null | `null` |  |\n" in page.text
    assert page.text.startswith("<!-- fields: X -->\n") and page.text.endswith("<!-- end -->\n")


def test_errors_are_read_from_the_source() -> None:
    source = """
AGAIN = "export it again"

def require(condition, message, *, code):
    if not condition:
        raise ConfigError(message, code=code)

def check(path, size):
    if size > 9:
        raise ImageError(f"{path.name} is {size}, " f"expected {2 + 2}; {AGAIN}", code="E-x-size")
    require(size, "give a size", code="E-x-none")
    if size == 3:
        why, code = "it is odd", "E-x-odd"
    else:
        why, code = "it is even", "E-x-even"
    raise BundleError(f"no: {why}", code=code)
"""
    tree = ast.parse(source)
    known = {name: name for name in raised.kinds()} | {"require": "ConfigError"}
    assert sorted(raised.Module(tree, known, {"AGAIN": "export it again"}).raised()) == [
        ("E-x-even", "BundleError", "it is even"),
        ("E-x-none", "ConfigError", "give a size"),
        ("E-x-odd", "BundleError", "it is odd"),
        ("E-x-size", "ImageError", "{name} is {size}, expected ...; export it again"),
    ]


def test_every_error_that_is_raised_names_its_code() -> None:
    without = [
        f"{path.relative_to(ROOT)}:{call.lineno}"
        for path, module in raised.modules().items()
        for call, _ in module.calls()
        if "code" not in [keyword.arg for keyword in call.keywords]
    ]
    assert without == []


def test_codes_are_short_and_all_look_alike() -> None:
    found = errors.codes()
    assert [code for code in found if len(code) > 40 or not re.fullmatch(r"E(-[a-z0-9]+)+", code)] == []


def test_a_code_is_of_one_class_and_has_a_sentence() -> None:
    """The sentences themselves are held by docs/errors.md: `test_no_page_is_stale` shows each that was changed."""
    made = {kind.code for kind in raised.kinds().values()}
    found = {code: entry for code, entry in errors.codes().items() if code not in made}
    assert [code for code, entry in found.items() if len(entry.classes) != 1] == []
    assert [code for code, entry in found.items() if not entry.sentences] == []


@pytest.mark.parametrize("name", PAGES)
def test_every_page_is_linked(name: str) -> None:
    texts = [(ROOT / page).read_text(encoding="utf-8") for page in ("README.md", "docs/cli.md", "docs/architecture.md")]
    assert any(f"{name})" in text for text in texts)


def test_the_readme_is_short() -> None:
    assert (ROOT / "README.md").stat().st_size <= 6500


def test_links_lead_somewhere() -> None:
    """Files and headings that the pages name, as GitHub makes anchors of headings."""
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *ROOT.glob("docs/**/*.md")]
    broken = []
    for page in pages:
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
            file, _, heading = target.partition("#")
            if file.startswith(("http:", "https:")):
                continue
            place = (page.parent / file).resolve() if file else page
            if not place.exists() or (heading and heading not in anchors(place)):
                broken.append(f"{page.relative_to(ROOT)}: {target}")
    assert broken == []


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
