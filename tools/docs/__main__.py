"""``python -m tools.docs`` writes the generated parts of docs/ anew; ``--check`` only says which are stale."""

from __future__ import annotations

import argparse

from . import errors, fields, help_texts
from .page import ROOT, Page

#: page below docs/ -> what writes its generated parts.
PAGES = {"cli.md": help_texts.fill, "bundle-format.md": fields.fill, "errors.md": errors.fill}


def stale() -> dict[str, str]:
    """The pages that are not what the code makes of them, with what they should be."""
    found = {}
    for name, fill in PAGES.items():
        path = ROOT / "docs" / name
        present = path.read_text(encoding="utf-8") if path.is_file() else ""
        page = Page(present)
        fill(page)
        if page.text != present:
            found[name] = page.text
    return found


def main() -> int:
    """Write, or check."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip())
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if a page is stale")
    asked = parser.parse_args()
    found = stale()
    for name, text in found.items():
        if asked.check:
            print(f"docs/{name} is stale: make docs")
        else:
            (ROOT / "docs" / name).write_text(text, encoding="utf-8")
            print(f"docs/{name} written")
    return 1 if asked.check and found else 0


if __name__ == "__main__":
    raise SystemExit(main())
