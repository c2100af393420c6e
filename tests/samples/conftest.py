"""The scripts of a sample import each other by name, as they do when they are run from the command line."""

from __future__ import annotations

import sys
from pathlib import Path

DIGITS = str(Path(__file__).resolve().parents[2] / "samples" / "digits")
if DIGITS not in sys.path:
    sys.path.append(DIGITS)
