"""SHA-256 of plain data, and seeds that follow from it."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def digest(data: Any) -> str:
    """SHA-256 of plain data, hexadecimal; equal data have equal digests, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(data, sort_keys=True, default=str).encode()).hexdigest()


def derived_seed(seed: int, *parts: object, bits: int = 31) -> int:
    """A seed of ``bits`` bits that follows from another and from what it is for."""
    return int(digest({"seed": seed, "for": [str(p) for p in parts]})[:16], 16) & ((1 << bits) - 1)
