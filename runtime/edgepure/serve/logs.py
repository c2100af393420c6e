"""One JSON object a line on stderr: when, what, and what belongs to it. No image, no score norm, no token."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from datetime import datetime, timezone


def log(event: str, **facts: object) -> None:
    """Write one line."""
    entry = {"time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"), "event": event, **facts}
    with suppress(OSError, ValueError):  # a full disk or a closed stream ends no service
        sys.stderr.write(json.dumps(entry, default=str) + "\n")
        sys.stderr.flush()
