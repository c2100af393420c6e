"""One JSON object a line on stderr: when, what, and what belongs to it. No image, no score norm, no token."""

from __future__ import annotations

import json
import logging
import sys
from contextlib import suppress
from datetime import datetime, timezone


def log(event: str, **facts: object) -> None:
    """Write one line."""
    entry = {"time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"), "event": event, **facts}
    with suppress(OSError, ValueError):  # a full disk or a closed stream ends no service
        sys.stderr.write(json.dumps(entry, default=str) + "\n")
        sys.stderr.flush()


class Lines(logging.Handler):
    """What libraries say, in the same form."""

    def emit(self, record: logging.LogRecord) -> None:
        facts = {"error": logging.Formatter().formatException(record.exc_info)} if record.exc_info else {}
        log(record.levelname.lower(), source=record.name, words=record.getMessage(), **facts)


def take_logs_of(*names: str) -> None:
    """Write what these loggers have to say as lines of the log."""
    for name in names:
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [Lines(logging.WARNING)], False
