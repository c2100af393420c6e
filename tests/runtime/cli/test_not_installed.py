"""A source tree on Python's path that nobody installed: it has no commands, and says so."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

#: Nothing declares anything, as where there is no metadata of an installed package.
BARE = """
import importlib.metadata
importlib.metadata.entry_points = lambda **wanted: importlib.metadata.EntryPoints()
from edgepure.cli import main
main()
"""


@pytest.mark.parametrize("asked", [["doctor"], ["-h"], ["classify", "digits", "--json"]])
def test_it_says_so(asked: list[str]) -> None:
    found = subprocess.run([sys.executable, "-c", BARE, *asked], capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert found.stderr.startswith("error: ") and found.stderr.count("\n") == 1
    if "--json" in asked:
        error = json.loads(found.stdout)["error"]
        assert (error["code"], error["exit_code"]) == ("E-cli-not-installed", 2)
    else:
        assert not found.stdout
