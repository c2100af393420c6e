"""The scripts of a sample import each other by name, as they do when they are run from the command line."""

from __future__ import annotations

import sys
from pathlib import Path

from translations_once import translations_are_read_once  # noqa: F401 - for every test here

DIGITS = str(Path(__file__).resolve().parents[2] / "samples" / "digits")
if DIGITS not in sys.path:
    sys.path.append(DIGITS)
