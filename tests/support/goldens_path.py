"""Where the golden vectors lie."""

from __future__ import annotations

import os
from pathlib import Path


def goldens_dir() -> Path:
    """``tests/goldens``, or the folder of the same format that ``EDGEPURE_GOLDENS`` names."""
    return Path(os.environ.get("EDGEPURE_GOLDENS") or Path(__file__).parents[1] / "goldens")
