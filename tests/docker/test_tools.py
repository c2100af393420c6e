"""The tools that build are of one version, wherever they are installed."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_uv_is_pinned_everywhere_to_the_same_version() -> None:
    (wanted,) = re.findall(r"^UV_VERSION := (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert "install --quiet uv==$(UV_VERSION)" in (ROOT / "Makefile").read_text()
    files = [*ROOT.glob("docker/*.Dockerfile")]
    found = {file.name: re.findall(r"\buv==(\S+)", file.read_text()) for file in files}
    assert any(found.values())
    assert all(versions in ([], [wanted]) for versions in found.values()), found
